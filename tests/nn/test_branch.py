"""Sums of 1-Lipschitz terms: the bound holds at every weight that an optimizer can reach."""

import pytest
import torch

from pyro_gflows.actions import VectorAction
from pyro_gflows.nn import LipschitzSum, RadialTerm, Ridges, Term
from pyro_gflows.numerics import BanachSolver
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GResidual
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


class OwnTerm(Term):
    """A term with nothing but its Jacobian."""

    terms = 1

    def __init__(self, action):
        super().__init__()
        self.action, self.slope = action, torch.nn.Parameter(torch.tensor(0.3, dtype=torch.float64))

    def call_and_jacobian(self, x, weights):
        value = weights[0] * self.slope * x
        return value, weights[0] * self.slope * torch.eye(x.shape[-1], dtype=x.dtype).expand(*x.shape, -1)


def sums(action):
    """A ready-made sum, and one with a term of a user's own."""
    parts = [RadialTerm(action, knots=6), OwnTerm(action)]
    return [randomize_(make(action), scale=1.0), randomize_(LipschitzSum(parts, bound=0.9).double(), scale=1.0)]


def test_the_value_alone_is_that_beside_the_jacobian_with_its_gradients(action):
    for branch in sums(action):
        x = points(action, 8)[:8].requires_grad_()
        inputs = [x, *branch.parameters()]
        value, expected = branch(x), branch.call_and_jacobian(x)[0]
        torch.testing.assert_close(value, expected, rtol=0, atol=1e-14)
        ours, theirs = (torch.autograd.grad(y.sin().sum(), inputs, allow_unused=True) for y in (value, expected))
        assert sum(mine is not None and float(mine.abs().max()) > 0 for mine in ours) >= 3
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-10, atol=1e-11)


def test_products_with_the_transpose_are_those_of_the_dense_jacobian_with_its_gradients(action):
    vector = points(action, 8)[:8].roll(1, -1).cos()
    for branch in sums(action):
        x = points(action, 8)[:8].requires_grad_()
        inputs = [x, *branch.parameters()]
        value, product = branch.call_and_pullback(x)
        found = product(vector, create_graph=True)
        jacobian = branch.call_and_jacobian(x)[1]
        expected = (jacobian.mT @ vector[..., None]).squeeze(-1)
        torch.testing.assert_close(value, branch(x), rtol=0, atol=1e-14)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
        ours, theirs = (
            torch.autograd.grad(y.square().sum(), inputs, allow_unused=True, retain_graph=True)
            for y in (found, expected)
        )
        for mine, other in zip(ours, theirs, strict=True):
            torch.testing.assert_close(mine, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["plane D8", "two planes C4", "O(2)"])
def test_an_inverse_and_a_probe_make_no_jacobian(name, monkeypatch):
    branch = randomize_(make(ACTIONS[name]), scale=1.0)
    for part in (Ridges, RadialTerm):
        monkeypatch.setattr(part, "call_and_jacobian", None)
    y = points(branch.action, 8)
    root, report = BanachSolver()(branch, y, 1, lipschitz=0.9)
    assert report.converged and (root + branch(root) - y).abs().max() < 1e-10
    value, product = branch.call_and_pullback(y)
    assert not product(y, create_graph=False).requires_grad and value.shape == y.shape


def test_frames_are_made_once_for_the_evaluations_of_a_solver(monkeypatch):
    branch, made = randomize_(make(FINITE["regular D3"]), scale=1.0), []
    frames = Ridges._make_kernel
    monkeypatch.setattr(Ridges, "_make_kernel", lambda self: made.append(1) or frames(self))
    layer = GResidual(branch.action, branch).double()
    with torch.no_grad():
        layer.many_passes(points(branch.action, 8), None)
    assert len(made) == 1  # for the solver and the log-det
