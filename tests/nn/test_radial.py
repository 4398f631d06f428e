"""Radial terms: equivariant, 1-Lipschitz at every weight, and smooth enough at the origin."""

import pytest
import torch

from pyro_gflows.nn import RadialTerm
from pyro_gflows.nn.isotypic import IsotypicParts
from pyro_gflows.nn.radial import safe_norm
from pyro_gflows.testing import randomize_
from tests.nn.terms import ACTIONS, assert_equivariant, autograd_jacobian, extreme_, points

ONE = torch.ones(1, dtype=torch.float64)


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


@pytest.mark.parametrize("seed", [0, 1])
def test_is_1_lipschitz_at_extreme_weights(action, seed):
    term = extreme_(RadialTerm(action, knots=6).double(), seed)
    _, jacobian = term.call_and_jacobian(points(action), ONE)
    assert torch.linalg.matrix_norm(jacobian, 2).max() <= 1 + 1e-12


def test_is_equivariant_with_the_jacobian_of_autograd(action):
    term = randomize_(RadialTerm(action, knots=6).double(), scale=1.0)
    x = points(action, 8)
    assert_equivariant(lambda x: term.call_and_jacobian(x, ONE)[0], action, x)
    away = x[x.abs().amin(1) > 0]
    expected = autograd_jacobian(lambda x: term.call_and_jacobian(x, ONE)[0], away)
    torch.testing.assert_close(term.call_and_jacobian(away, ONE)[1], expected, rtol=0, atol=1e-10)


def test_commutes_with_every_orthogonal_map_of_one_part():
    action = ACTIONS["O(2)"]
    term = randomize_(RadialTerm(action, knots=6).double(), scale=1.0)
    x = points(action, 8)
    value, _ = term.call_and_jacobian(x, ONE)
    direction = (x * value).sum(1).abs()
    torch.testing.assert_close(direction, x.norm(dim=1) * value.norm(dim=1), rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_everything_is_finite_at_the_origin(action, dtype):
    term = randomize_(RadialTerm(action).to(dtype), scale=1.0)
    x = torch.zeros(2, action.numel, dtype=dtype, requires_grad=True)
    value, jacobian = term.call_and_jacobian(x, ONE.to(dtype))
    assert value.abs().max() == 0
    (value.square().sum() + jacobian.diagonal(dim1=-2, dim2=-1).sum() + value.sum()).backward()
    assert x.grad.isfinite().all()
    assert term.splines.theta.grad.isfinite().all()
    slopes = torch.tanh(term.splines.theta.detach().double()[:, 0])
    eigenvalues = torch.linalg.eigvalsh(jacobian[0].detach().double())
    expected = slopes.repeat_interleave(torch.tensor(term.parts.sizes)).sort().values
    torch.testing.assert_close(eigenvalues, expected, rtol=0, atol=1e-5)


def test_parts_are_the_isotypic_components(action):
    parts = IsotypicParts(action).double()
    x = points(action, 5)
    split = parts.split(x)
    torch.testing.assert_close(parts.merge(list(split)), x, rtol=0, atol=1e-12)
    expected = [isotype.basis.flatten(0, 1) for isotype in action.decomposition]
    assert len(parts) == len(expected)
    for part, rows in zip(split, expected, strict=True):
        torch.testing.assert_close(part.norm(dim=1), (x @ rows.T).norm(dim=1), rtol=0, atol=1e-12)


def test_safe_norm_is_the_norm_with_a_gradient_of_0_at_0():
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]], requires_grad=True)
    safe_norm(x).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
