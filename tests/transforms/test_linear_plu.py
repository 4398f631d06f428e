"""GLinearPLU against materialized matrices, and the matrices that it can represent."""

import math

import pytest
import torch

from pyro_gflows import GLinear, ImageAction, VectorAction
from pyro_gflows.nn.division_algebra import algebra_exp, algebra_log, algebra_product, as_real, coefficients
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import GLinearPLU
from tests.constructors.actions import QUATERNIONS

ACTIONS = {
    "C4, vectors": VectorAction.plane("C4", copies=3),
    "D4, vectors": VectorAction.regular("D4"),
    "C8, vectors": VectorAction.regular("C8", copies=2),
    "SO(3)": VectorAction.space("SO(3)", copies=3),
    "S5": VectorAction.rows("S5", features=3),
    "quaternions": VectorAction.from_generators(QUATERNIONS).copies(3),
    "no symmetry": VectorAction.trivial("C1", copies=4),
    "image D4, trivial": ImageAction("D4", 3, size=3),
    "image C4, regular": ImageAction("C4", 2, size=2, fields="regular"),
    "image translations": ImageAction.translations(1, size=3, point_group="D4", fields="regular"),
}


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


def channels(action):
    return VectorAction(action.fields)


def dense(layer):
    """The map as a matrix, one column for each unit event."""
    action = layer.action_in
    units = torch.eye(action.numel, dtype=torch.float64).reshape(-1, *action.event_shape)
    with torch.no_grad():
        return layer(units).flatten(1).T


def random_intertwiner(action, seed):
    """An invertible equivariant matrix on the channels with negative eigenvalues: an average over random matrices."""
    layer = randomize_(GLinear(channels(action)), scale=1.0, generator=torch.Generator().manual_seed(seed)).double()
    return -layer.generator.matrix().detach()


def test_inverse_and_log_det_are_those_of_the_materialized_matrix(action):
    layer = randomize_(GLinearPLU(action), generator=torch.Generator().manual_seed(0)).double()
    matrix, generator = dense(layer), torch.Generator().manual_seed(1)
    x = torch.randn(4, *action.event_shape, dtype=torch.float64, generator=generator)
    y, ladj = layer.call_and_ladj(x)
    back, inverse_ladj = layer.inv_call_and_ladj(y)
    torch.testing.assert_close(y.flatten(1), x.flatten(1) @ matrix.T, rtol=1e-12, atol=1e-12)
    expected = torch.linalg.slogdet(matrix).logabsdet.expand(4)
    assert (ladj - expected).abs().max() <= 1e-9 and (inverse_ladj + expected).abs().max() <= 1e-9
    direct = torch.linalg.solve(matrix, y.flatten(1).T).T
    assert (back.flatten(1) - direct).abs().max() <= 1e-9 and (back - x).abs().max() <= 1e-9
    assert_layer(layer, x[:1], tol=1e-9)


@pytest.mark.parametrize("seed", [0, 1])
def test_any_invertible_intertwiner_is_represented(action, seed):
    matrix = random_intertwiner(action, seed)
    layer = GLinearPLU.from_matrix(action, matrix).double()
    pixels = torch.eye(action.numel // len(matrix), dtype=torch.float64)
    torch.testing.assert_close(dense(layer), torch.kron(matrix, pixels), rtol=1e-9, atol=1e-9)


def test_a_matrix_without_a_real_logarithm_is_represented():
    action = VectorAction.trivial("C1", copies=2)
    matrix = torch.diag(torch.tensor([-1.0, -2.0], dtype=torch.float64))
    layer = GLinearPLU.from_matrix(action, matrix).double()
    assert torch.equal(dense(layer).round(decimals=12), matrix)
    assert layer.call_and_ladj(torch.zeros(2).double())[1].item() == pytest.approx(math.log(2.0))


def test_a_random_start_is_orthogonal_and_a_plain_one_the_identity(action):
    eye = torch.eye(action.numel, dtype=torch.float64)
    assert torch.equal(dense(GLinearPLU(action).double()).round(decimals=12), eye)
    layer = GLinearPLU.random(action, generator=torch.Generator().manual_seed(0)).double()
    matrix = dense(layer)  # of weights that were rounded to float32
    torch.testing.assert_close(matrix @ matrix.T, eye, rtol=1e-5, atol=1e-5)
    assert (matrix - eye).norm() > 0.5
    ladj = layer.call_and_ladj(torch.zeros(action.event_shape).double())[1]
    assert abs(ladj.item()) < 1e-5


def test_constants_are_saved_with_the_weights(action):
    layer = GLinearPLU.from_matrix(action, random_intertwiner(action, 0)).double()
    other = GLinearPLU(action).double()
    other.load_state_dict(layer.state_dict())
    assert torch.equal(dense(other), dense(layer))


def test_bad_matrices_are_named():
    action = VectorAction.plane("C4", copies=2)
    with pytest.raises(ValueError, match=r"singular values range from .* to 2"):
        GLinearPLU.from_matrix(action, torch.diag(torch.tensor([2.0, 2.0, 0.0, 0.0])))
    with pytest.raises(ValueError, match="from the nearest equivariant matrix by 0.25 of its norm"):
        GLinearPLU.from_matrix(action, torch.diag(torch.tensor([2.0, 1.0, 1.0, 1.0])))
    with pytest.raises(ValueError, match=r"shape \(4, 4\)"):
        GLinearPLU.from_matrix(action, torch.eye(2))
    with pytest.raises(ValueError, match="finite entries, got 1"):
        GLinearPLU.from_matrix(action, torch.diag(torch.tensor([1.0, 1.0, 1.0, torch.nan])).nan_to_num(nan=torch.inf))


@pytest.mark.parametrize("kind", [1, 2, 4])
def test_the_algebra_is_that_of_its_real_matrices(kind):
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(2, 3, kind, dtype=torch.float64, generator=generator)

    def matrices(entries):
        return as_real(entries[:, None, None])

    torch.testing.assert_close(matrices(algebra_product(a, b)), matrices(a) @ matrices(b))
    torch.testing.assert_close(matrices(algebra_exp(a)), torch.linalg.matrix_exp(matrices(a)))
    torch.testing.assert_close(algebra_exp(algebra_log(algebra_exp(a))), algebra_exp(a))
    table = torch.randn(2, 3, kind, dtype=torch.float64, generator=generator)
    torch.testing.assert_close(coefficients(as_real(table), kind), table)


@pytest.mark.parametrize("kind", [2, 4])
@pytest.mark.parametrize("size", [0.0, 1e-8, 1e-3, 0.0099, 0.0101, 3.0])
def test_the_exponential_has_gradients_near_the_real_axis(kind, size):
    x = torch.full((kind,), size, dtype=torch.float64, requires_grad=True)
    jacobian = torch.autograd.functional.jacobian(algebra_exp, x)
    expected = torch.autograd.functional.jacobian(lambda v: torch.linalg.matrix_exp(as_real(v[None, None]))[:, 0], x)
    torch.testing.assert_close(jacobian, expected, rtol=1e-12, atol=1e-12)
