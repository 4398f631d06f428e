"""Augmented couplings on particles: exact log-dets, symmetry, and an exchange that keeps differences and volumes."""

import pytest
import torch

from pyro_gflows import (
    GExchange,
    GRelative,
    ParticleAction,
    RowsAction,
    RowStretch,
    VectorAction,
    g_augmented_coupling,
)
from pyro_gflows.nn import BoundedKnots
from pyro_gflows.testing import assert_layer, dense_log_det, randomize_
from pyro_gflows.transforms import Compose

ACTIONS = {
    "4 in the plane": ParticleAction(4, 2),
    "two species in space": ParticleAction((2, 3), 3),
    "rotations only, one particle of its kind": ParticleAction((2, 1), 3, group="SO(3)"),
    "on a line": ParticleAction(3, 1),
    "no rotations": ParticleAction(3, 2, group="C1"),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def events(action, *batch, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*batch, action.numel, dtype=torch.float64, generator=generator)


def random_weights(layer):
    return randomize_(layer.double(), generator=torch.Generator().manual_seed(1)).eval()


@pytest.mark.parametrize("copies", [1, 2])
def test_steps_are_equivariant_bijections_with_their_log_dets(action, copies):
    torch.manual_seed(0)
    steps = [g_augmented_coupling(action, copies=copies, width=4, depth=1) for _ in range(2)]
    layer = random_weights(Compose(steps))
    x = events(layer.action_in, 1)
    assert (layer(x) - x).abs().max() > 0.1
    assert_layer(layer, x, tol=1e-9)


@pytest.mark.parametrize("distance", [1e-3, 0.0])
def test_particles_that_nearly_coincide(distance):
    action = ParticleAction(4, 2)
    layer = random_weights(g_augmented_coupling(action, width=4))
    x = torch.tensor([[1.0, 1.0], [1.0 + distance, 1.0], [-1.0, 0.5], [-1.0, -2.5]], dtype=torch.float64)
    x = x - x.mean(0)
    z = torch.cat([action.to_coordinates(x), x.flatten()])[None]  # auxiliary vectors that coincide as well
    assert_layer(layer, z, tol=1e-8)
    z.requires_grad_()
    y, log_det = layer.call_and_ladj(z)
    (grad,) = torch.autograd.grad(y.sum() + log_det.sum(), z)
    assert grad.isfinite().all()


# -- the exchange -----------------------------------------------------------------------------------------------------
def points_of(action, copies, z):
    """All points of an event: the positions, then the clouds."""
    size = action.coordinates.numel
    clouds = z[..., size:].unflatten(-1, (copies, action.n, action.d))
    return torch.cat([action.from_coordinates(z[..., :size])[..., None, :, :], clouds], -3)


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_an_exchange_keeps_all_differences_and_volumes(action, copies):
    layer = GExchange(action, copies=copies)
    z = events(layer.action_in, 3)
    y, log_det = layer.call_and_ladj(z)
    before, after = points_of(action, copies, z).roll(-1, -3), points_of(action, copies, y)
    shift = after - before
    torch.testing.assert_close(shift, shift[..., :1, :1, :].expand_as(shift), rtol=0, atol=1e-12)
    assert after[..., 0, :, :].mean(-2).abs().max() < 1e-12
    assert (log_det == 0).all()
    torch.testing.assert_close(dense_log_det(layer, z), log_det, rtol=0, atol=1e-12)
    assert_layer(layer, z, tol=1e-11)


def test_with_one_cloud_the_exchange_is_orthogonal():
    layer = GExchange(ACTIONS["two species in space"])
    matrix = layer(torch.eye(layer.action_in.numel, dtype=torch.float64))
    torch.testing.assert_close(matrix @ matrix.T, torch.eye(len(matrix), dtype=torch.float64), rtol=0, atol=1e-12)


def test_clouds_relative_to_their_particles(action):
    layer = GRelative(action, copies=2)
    z = events(layer.action_in, 3)
    before, after = points_of(action, 2, z), points_of(action, 2, layer(z))
    torch.testing.assert_close(after[:, 0], before[:, 0], rtol=0, atol=1e-12)
    torch.testing.assert_close(after[:, 1:], before[:, 1:] - before[:, :1], rtol=0, atol=1e-12)
    assert_layer(layer, z, tol=1e-11)


# -- the map of rows --------------------------------------------------------------------------------------------------
def test_the_stretch_is_that_of_matrix_exponentials():
    action = ACTIONS["two species in space"].rows
    transformer = RowStretch(action, bins=3, max_log_scale=2.0).double()
    x, vectors = events(action, 6), torch.randn(6, 5, 4, 3, dtype=torch.float64)
    params = torch.cat([x.new_zeros(6, 5 * 11), vectors.flatten(1)], -1)
    center, shift, along, against = vectors.unbind(-2)
    expected = x.unflatten(-1, (5, 3)) - center
    for direction, sign in ((against, -1.0), (along, 1.0)):
        bounded = direction / (1 + direction.square().sum(-1, keepdim=True) / 2.0).sqrt()
        matrix = torch.matrix_exp(sign * bounded[..., :, None] * bounded[..., None, :])
        expected = (matrix @ expected[..., None]).squeeze(-1)
    y, _ = transformer(x, params)
    torch.testing.assert_close(y.unflatten(-1, (5, 3)), expected + center + shift, rtol=0, atol=1e-11)


def test_the_spline_stretches_the_radius_about_the_center():
    transformer = RowStretch(RowsAction(3, VectorAction.plane("O(2)")), bins=4).double()
    scalars, center = torch.randn(3, 14, dtype=torch.float64), torch.randn(3, 1, 2, dtype=torch.float64)
    vectors = torch.cat([center, torch.zeros(3, 3, 2, dtype=torch.float64)], -2)
    x = torch.randn(200, 3, 2, dtype=torch.float64)
    params = torch.cat([scalars.flatten(), vectors.flatten()]).expand(200, -1)
    y = transformer(x.flatten(1), params)[0].unflatten(-1, (3, 2))
    before, after = x - center.squeeze(-2), y - center.squeeze(-2)
    torch.testing.assert_close(before / before.norm(dim=-1, keepdim=True), after / after.norm(dim=-1, keepdim=True))
    order = before.norm(dim=-1).argsort(0)
    assert (after.norm(dim=-1).gather(0, order).diff(dim=0) > 0).all()
    assert (after.norm(dim=-1) - before.norm(dim=-1)).abs().max() > 0.1


@pytest.mark.parametrize("size", [1.0, 100.0])
def test_the_stretch_is_a_bijection_with_its_log_det(action, size):
    rows = action.rows.copies(2)
    transformer = RowStretch(rows, bins=3).double()
    x, params = events(rows, 3), size * events(transformer.params_action, 3, seed=1)
    y, ladj = transformer(x, params)
    back, inverse_ladj = transformer.inverse(y, params)
    torch.testing.assert_close(back, x, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(inverse_ladj, -ladj)
    for row in range(3):
        one = slice(row, row + 1)
        expected = dense_log_det(lambda e, one=one: transformer(e, params[one])[0], x[one], event_dim=1)
        torch.testing.assert_close(ladj[one], expected, rtol=0, atol=1e-8)


# -- mistakes ---------------------------------------------------------------------------------------------------------
def test_other_arguments_are_refused():
    free = ParticleAction(4, 2, center="free")
    with pytest.raises(ValueError, match=r"center of mass 0.*g_coupling"):
        g_augmented_coupling(free)
    with pytest.raises(TypeError, match="expected a ParticleAction"):
        GExchange(VectorAction.plane("O(2)"))
    with pytest.raises(ValueError, match="positive number of copies, got 0"):
        GExchange(ParticleAction(4, 2), copies=0)
    with pytest.raises(TypeError, match="expected a RowsAction"):
        RowStretch(VectorAction.plane("O(2)"))
    with pytest.raises(ValueError, match="one vector for each row"):
        RowStretch(ParticleAction(4, 2).coordinates)
    with pytest.raises(ValueError, match="bins >= 1"):
        RowStretch(free.rows, bins=0)


def test_knots_of_the_caller_are_used():
    knots = BoundedKnots(secant=4.0)
    assert RowStretch(ParticleAction(4, 2).rows, knots=knots).knots is knots
