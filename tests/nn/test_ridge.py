"""Ridge terms: equivariant, 1-Lipschitz at every weight, with the Jacobian that autograd gives."""

import pytest
import torch

from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.nn import Ridges
from pyro_gflows.testing import randomize_
from tests.nn.terms import FINITE, assert_equivariant, autograd_jacobian, extreme_, points


@pytest.fixture(params=FINITE)
def action(request):
    return FINITE[request.param]


def one_term(ridges, index, x):
    weights = torch.zeros(ridges.terms, dtype=torch.float64)
    weights[index] = 1.0
    return ridges.call_and_jacobian(x, weights)


@pytest.mark.parametrize("seed", [0, 1, -3])
def test_each_term_is_1_lipschitz_at_extreme_weights(action, seed):
    ridges = extreme_(Ridges(action, 3, knots=5).double(), seed)
    for index in range(3):
        _, jacobian = one_term(ridges, index, points(action))
        assert torch.linalg.matrix_norm(jacobian, 2).max() <= 1 + 1e-12


@pytest.mark.parametrize("name", ["plane D8", "plane C3", "quaternions"])
def test_slopes_of_one_give_the_identity_on_an_irreducible_event(name):
    """The bound is tight: u = v with s(t) = t is the tight frame of Schur's lemma."""
    action = FINITE[name]
    ridges = Ridges(action, 1).double()
    with torch.no_grad():
        ridges.splines.theta.fill_(20.0)
    x = points(action)
    torch.testing.assert_close(one_term(ridges, 0, x)[0], x, rtol=0, atol=1e-12)


def test_is_equivariant_with_the_jacobian_of_autograd(action):
    ridges = randomize_(Ridges(action, 3, knots=5).double(), scale=1.0)
    weights = torch.tensor([0.5, -0.2, 0.3], dtype=torch.float64)
    x = points(action, 8)
    assert_equivariant(lambda x: ridges.call_and_jacobian(x, weights)[0], action, x)
    expected = autograd_jacobian(lambda x: ridges.call_and_jacobian(x, weights)[0], x)
    torch.testing.assert_close(ridges.call_and_jacobian(x, weights)[1], expected, rtol=0, atol=1e-11)


def test_is_the_sum_of_its_docstring():
    action = VectorAction.regular("D3")
    ridges = randomize_(Ridges(action, 1, knots=5).double(), scale=1.0)
    x = points(action, 8)
    rho = action.matrix(action.elements())
    frames = []
    for vector in (ridges.u[0], ridges.v[0]):
        images = torch.stack([matrix @ vector for matrix in rho])
        largest = torch.linalg.eigvalsh(images.T @ images / len(rho))[-1]
        frames.append(images / (len(rho) * largest).sqrt())
    length = frames[0][0].norm()  # the argument of s is the projection on a unit vector
    expected = ridges.splines(x @ frames[0].T / length, 0)[0] @ frames[1] * length
    torch.testing.assert_close(one_term(ridges, 0, x)[0], expected, rtol=0, atol=1e-12)


def test_half_of_the_sum_where_the_group_contains_minus_one():
    assert len(Ridges(VectorAction.plane("D8")).matrices.value) == 8
    assert len(Ridges(VectorAction.plane("C3")).matrices.value) == 3


@pytest.mark.parametrize("action", [VectorAction.plane("O(2)"), ImageAction("C4", size=2)], ids=str)
def test_other_actions_are_refused(action):
    with pytest.raises(ValueError, match="ridge terms need a finite group on vectors, got .*; use radial terms"):
        Ridges(action)
