"""GConvExponential against the exponential of the materialized matrix, at all norms. Contracts 25 and 26."""

import math

import pytest
import torch

from pyro_gflows import GConvExponential, ImageAction
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.representations import MatrixRepresentation
from pyro_gflows.nn.conv import convolve
from pyro_gflows.testing import assert_layer, randomize_

D4 = parse_group("D4")
ACTIONS = {
    "C4, trivial": (ImageAction("C4", 2, size=3), 3),
    "D4, regular": (ImageAction("D4", 1, size=3, fields="regular"), 3),
    "D4, kernel larger than the grid": (ImageAction("D4", 2, size=2), 5),
    "D4, vectors at each pixel": (ImageAction("D4", size=3, fields=MatrixRepresentation(D4, D4.plane())), 3),
    "D2, H != W": (ImageAction("D2", 2, size=(2, 4)), 3),
    "translations, 2 x 2": (ImageAction.translations(2, size=2, point_group="D4"), 5),
    "translations, 3 x 3, regular": (ImageAction.translations(1, size=3, point_group="C4", fields="regular"), 5),
    "translations, H != W": (ImageAction.translations(2, size=(2, 3), point_group="D1"), 3),
    "translations, no point group": (ImageAction.translations(3, size=3), 3),
}


@pytest.fixture(params=ACTIONS)
def case(request):
    return ACTIONS[request.param]


def make(case, *, seed=0, **keywords):
    action, kernel_size = case
    layer = GConvExponential(action, kernel_size=kernel_size, **keywords).double()
    return randomize_(layer, generator=torch.Generator().manual_seed(seed))


def dense(layer, kernel):
    """The convolution with a kernel as a matrix, one column for each unit image."""
    action = layer.action_in
    units = torch.eye(action.numel, dtype=torch.float64).reshape(-1, *action.event_shape)
    return convolve(units, kernel, padding=action.padding).flatten(1).T


def events(layer, n=4):
    shape = n, *layer.action_in.event_shape
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(7))


@torch.no_grad()
def test_it_is_the_exponential_of_the_materialized_convolution(case):
    layer = make(case, bias="pixels")
    generator = dense(layer, layer.kernel())
    exponential, x = torch.linalg.matrix_exp(generator), events(layer)
    shift = layer.conv.bias()
    assert shift is None or shift.abs().max() > 0
    y, ladj = layer.call_and_ladj(x)
    assert (y - (x.flatten(1) @ exponential.T).reshape(x.shape) - shift).abs().max() <= 1e-9
    expected = torch.linalg.slogdet(exponential).logabsdet.expand(4)
    assert (ladj - expected).abs().max() <= 1e-9
    back, inverse_ladj = layer.inv_call_and_ladj(y)
    direct = torch.linalg.solve(exponential, (y - shift).flatten(1).T).T
    assert (back.flatten(1) - direct).abs().max() <= 1e-9 and (back - x).abs().max() <= 1e-9
    assert (inverse_ladj + expected).abs().max() <= 1e-9


def test_it_is_an_equivariant_bijection_with_its_log_det(case):
    layer = make(case)
    assert_layer(layer, events(layer, 1), tol=1e-9)


@pytest.mark.parametrize("bias", [False, True, "pixels"])
def test_a_bias_is_invariant_and_undone(bias):
    layer = make(ACTIONS["D4, regular"], bias=bias)
    zero = torch.zeros(layer.action_in.event_shape, dtype=torch.float64)
    shift = layer(zero)
    images = layer.action_in.act(layer.action_in.elements(), shift)
    assert (images - shift).abs().max() < 1e-12 and bool(shift.abs().max() > 0) == bool(bias)
    assert layer.inv(shift.clone()).abs().max() < 1e-12
    torch.testing.assert_close(layer.call_and_ladj(zero)[1], layer.call_and_ladj(shift)[1])


def scaled_to(layer, norm, kernel):
    """The same layer with this kernel at a norm, whatever the bound of the growth."""
    with torch.no_grad():
        layer.conv.assign_(kernel * norm / torch.linalg.matrix_norm(dense(layer, kernel), 2))
    return layer


@pytest.mark.parametrize("kind", ["any", "symmetric", "skew-symmetric"])
@pytest.mark.parametrize("norm", [0.1, 1.0, 10.0, 30.0])
@pytest.mark.parametrize("name", ["C4, trivial", "D4, regular", "translations, 2 x 2", "translations, 3 x 3, regular"])
@torch.no_grad()
def test_round_trips_at_small_and_large_norms(name, norm, kind):
    """The error is at most 100 eps exp(mu(K) + mu(-K)), which for a skew-symmetric K is 100 eps."""
    layer = make(ACTIONS[name], max_log_scale=1e8)
    free = layer.conv.kernel()
    transposed = free.transpose(0, 1).flip(2, 3)
    layer = scaled_to(layer, norm, {"any": free, "symmetric": free + transposed}.get(kind, free - transposed))
    matrix = dense(layer, layer.kernel())
    assert torch.linalg.matrix_norm(matrix, 2).item() == pytest.approx(norm, rel=1e-9)
    growth = torch.linalg.eigvalsh((matrix + matrix.T) / 2)
    x = events(layer)
    y, _ = layer.call_and_ladj(x)
    relative = (layer.inv_call_and_ladj(y)[0] - x).flatten(1).norm(dim=1).max() / x.flatten(1).norm(dim=1).max()
    allowed = max(1e-9, 100 * 2.3e-16 * math.exp(growth[-1] - growth[0]))
    assert relative <= (1e-8 if kind == "skew-symmetric" else allowed)
    if kind == "skew-symmetric":
        exact = (x.flatten(1) @ torch.linalg.matrix_exp(matrix).T).reshape(x.shape)
        assert (y - layer.conv.bias()[:, None, None] - exact).abs().max() <= 1e-8


@pytest.mark.parametrize("max_log_scale", [0.5, 3.0])
@torch.no_grad()
def test_far_weights_neither_grow_nor_shrink_beyond_the_bound(case, max_log_scale):
    layer = make(case, max_log_scale=max_log_scale)
    layer.conv.orbit_weights.mul_(5.0)
    matrix = dense(layer, layer.kernel())
    values = torch.linalg.svdvals(torch.linalg.matrix_exp(matrix)).log()
    assert values.abs().max() <= max_log_scale * (1 + 1e-9)
    growth = torch.linalg.eigvalsh((matrix + matrix.T) / 2).abs().max()
    assert 0.3 * max_log_scale < growth <= max_log_scale
    if layer.action_in.padding == "circular":  # the bound is exact
        matrix = dense(layer, layer.conv.kernel())
        free = torch.linalg.eigvalsh((matrix + matrix.T) / 2).abs().max()
        torch.testing.assert_close(growth, free / (1 + (free / max_log_scale) ** 2) ** 0.5)


def test_errors_name_the_argument():
    action = ImageAction("C4", size=3)
    with pytest.raises(ValueError, match="positive finite bound max_log_scale, got 0"):
        GConvExponential(action, max_log_scale=0.0)
    with pytest.raises(ValueError, match="odd kernel_size"):
        GConvExponential(action, kernel_size=2)
    layer = make((ImageAction.translations(2, size=3), 3), max_log_scale=1e9)
    with torch.no_grad():
        layer.conv.orbit_weights.mul_(1e5)
    with pytest.raises(ValueError, match="norm at most 1000, got one of norm .*e.05"):
        layer(events(layer))


def test_weights_that_diverged_show():
    layer = make(ACTIONS["C4, trivial"])
    with torch.no_grad():
        layer.conv.orbit_weights[0] = torch.nan
    assert layer(events(layer)).isnan().all()
