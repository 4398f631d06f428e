"""Sums of 1-Lipschitz terms: the bound holds at every weight that an optimizer can reach."""

import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.nn import LipschitzSum, RadialTerm, Ridges
from pyro_gflows.testing import randomize_
from tests.nn.terms import ACTIONS, FINITE, assert_equivariant, autograd_jacobian, extreme_, points


def make(action, *, bound=0.9):
    terms = [Ridges(action, 2, knots=5)] if action.is_finite else []
    return LipschitzSum([*terms, RadialTerm(action, knots=6)], bound=bound).double()


@pytest.fixture(params=ACTIONS)
def action(request):
    return ACTIONS[request.param]


@pytest.mark.parametrize("seed", [-3, 0, 1, 2])
def test_the_bound_holds_at_extreme_weights(action, seed):
    branch = extreme_(make(action), seed)
    _, jacobian = branch.call_and_jacobian(points(action))
    assert torch.linalg.matrix_norm(jacobian, 2).max() <= branch.lipschitz_bound() + 1e-12
    assert branch.lipschitz_bound() <= 0.9 * (1 + 1e-15)


def test_is_equivariant_with_the_jacobian_of_autograd(action):
    branch = randomize_(make(action))
    x = points(action, 8)
    assert_equivariant(branch, action, x)
    away = x[x.abs().amin(1) > 0]
    torch.testing.assert_close(branch.call_and_jacobian(away)[1], autograd_jacobian(branch, away), rtol=0, atol=1e-10)


def test_the_bound_survives_an_optimizer_that_wants_it_larger():
    action = FINITE["plane D8"]
    branch = make(action)
    optimizer = torch.optim.Adam(branch.parameters(), lr=0.5)
    x = points(action)
    for _ in range(40):
        optimizer.zero_grad()
        (-branch.call_and_jacobian(x)[1].square().sum()).backward()
        optimizer.step()
    norm = torch.linalg.matrix_norm(branch.call_and_jacobian(x)[1], 2).max()
    assert 0.8 < norm <= branch.lipschitz_bound() < 0.9


def test_weights_of_zero_give_zero_and_finite_gradients():
    branch = make(FINITE["plane D8"])
    with torch.no_grad():
        branch.p.zero_()
    value = branch(points(branch.action))
    assert value.abs().max() == 0
    value.sum().backward()
    assert branch.p.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: make(FINITE["plane D8"], bound=1.0), r"Lipschitz bound in \(0, 1\), got 1.0"),
        (lambda: make(FINITE["plane D8"], bound=float("nan")), r"Lipschitz bound in \(0, 1\), got nan"),
        (lambda: LipschitzSum([]), r"expected parts of one action, got \[\]"),
        (
            lambda: LipschitzSum([RadialTerm(VectorAction.plane("C4")), RadialTerm(VectorAction.plane("C3"))]),
            "parts of one action, got .*C4.*C3",
        ),
    ],
)
def test_bad_sums_say_what_was_expected(make, message):
    with pytest.raises(ValueError, match=message):
        make()
