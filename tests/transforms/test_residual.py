"""Residual layers: which branches are taken, and what the two directions compute."""

import pytest
import torch
from torch import nn

from pyro_gflows import GResidual, ImageAction, VectorAction, g_residual
from pyro_gflows.nn import LipschitzNetwork, LipschitzSum, RadialTerm, Ridges
from pyro_gflows.numerics import AndersonSolver, ExactLogDet, KrylovLogDet, NewtonSolver
from pyro_gflows.testing import assert_invariant, assert_layer, randomize_
from pyro_gflows.transforms import residual

CASES = {
    "plane D8": lambda fast: g_residual(VectorAction.plane("D8"), fast=fast),
    "O(2)": lambda fast: g_residual(VectorAction.plane("O(2)"), fast=fast),
    "two vectors SO(3)": lambda fast: g_residual(VectorAction.space("SO(3)", copies=2), bound=0.7, fast=fast),
    "regular C4": lambda fast: g_residual(VectorAction.regular("C4"), bound=0.7, fast=fast),
    "image": lambda fast: g_residual(ImageAction("D2", 1, size=3), bound=0.7, fast=fast),
}


@pytest.mark.parametrize("fast", ["score", "sample"])
@pytest.mark.parametrize("name", CASES)
def test_is_an_equivariant_bijection_with_its_log_det(name, fast):
    torch.manual_seed(1)
    layer = randomize_(CASES[name](fast).double(), scale=0.5).eval()
    x = torch.randn(4, *layer.action_in.event_shape, dtype=torch.float64)
    assert_layer(layer, x, tol=1e-9)
    f = layer.branch
    data, base = (x, layer.inv_call_and_ladj(x)[0]) if fast == "score" else (layer.call_and_ladj(x)[0], x)
    expected = data + f(data) - base if fast == "score" else base + f(base) - data
    assert expected.abs().max() < 1e-12


class Shrink(nn.Module):
    """A user's own branch, with a bound and nothing else."""

    def __init__(self, factor):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(factor))

    def forward(self, x):
        return self.factor * x

    def lipschitz_bound(self):
        return self.factor.abs()


def test_takes_a_users_branch():
    layer = GResidual(VectorAction.space("O(3)"), Shrink(0.5), fast="sample").double()
    assert_layer(layer, torch.randn(4, 3, dtype=torch.float64), tol=1e-9)
    assert layer.lipschitz_bound() == 0.5


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda a: GResidual(a, nn.Linear(2, 2)), TypeError, r"lipschitz_bound\(\) method, got Linear"),
        (lambda a: g_residual(a, log_det="exact"), TypeError, r"log_det to be a LogDet .*, got str"),
        (lambda a: g_residual(a, solver=NewtonSolver), TypeError, r"solver to be a Solver .*, got ABCMeta"),
        (lambda a: GResidual(a, Shrink(1.0)), ValueError, "Lipschitz bound below 1, got 1;"),
        (lambda a: GResidual(a, Shrink(float("nan"))), ValueError, "Lipschitz bound below 1, got nan"),
        (
            lambda a: GResidual(a, LipschitzNetwork(a, activation="gated")),
            ValueError,
            "bound below 1, got inf; an unbounded activation",
        ),
        (
            lambda a: GResidual(a, LipschitzSum([RadialTerm(VectorAction.plane("C3"))])),
            ValueError,
            "expected a branch for .*C4.* got one for .*C3",
        ),
        (lambda a: g_residual("C4"), TypeError, r"LinearAction such as VectorAction.plane\('D4'\), got str"),
        (lambda a: g_residual(a, bound=1.5), ValueError, r"bound in \(0, 1\), got 1.5"),
        (lambda a: g_residual(a, fast="yes"), ValueError, "expected fast='score'"),
    ],
)
def test_bad_branches_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make(VectorAction.plane("C4"))


def test_up_to_a_size_the_evaluation_is_exact(monkeypatch):
    monkeypatch.setattr(residual, "_EXACT_UP_TO", 3)
    for most, kind in ((5, ExactLogDet), (4, KrylovLogDet)):
        monkeypatch.setattr(residual, "_DENSE_UP_TO", most)
        layer = g_residual(VectorAction.trivial("C1", copies=5))
        assert isinstance(layer.log_det, KrylovLogDet) and isinstance(layer.log_det.evaluator(), kind)


def test_defaults_follow_the_size_of_the_event():
    small, large = g_residual(VectorAction.plane("D4")), g_residual(ImageAction("C4", 1, size=9))
    assert isinstance(small.log_det, ExactLogDet)
    assert isinstance(small.solver, NewtonSolver)
    assert isinstance(large.log_det, KrylovLogDet) and isinstance(large.log_det.evaluator(), ExactLogDet)
    assert isinstance(large.solver, AndersonSolver)
    assert isinstance(g_residual(VectorAction.trivial("C1", copies=32)).log_det, ExactLogDet)
    assert isinstance(g_residual(ImageAction("C4", 1, size=8)).log_det, ExactLogDet)  # of 64 components
    assert isinstance(g_residual(VectorAction.trivial("C1", copies=33)).log_det, KrylovLogDet)
    assert isinstance(g_residual(VectorAction.trivial("C1", copies=3)).solver, NewtonSolver)
    assert isinstance(g_residual(VectorAction.trivial("C1", copies=16)).solver, NewtonSolver)
    assert isinstance(g_residual(VectorAction.trivial("C1", copies=17)).solver, AndersonSolver)
    network = g_residual(VectorAction.trivial("C1", copies=4), branch=LipschitzNetwork)
    assert isinstance(network.solver, AndersonSolver)


@pytest.mark.long
def test_large_events_never_need_a_dense_jacobian(monkeypatch):
    """The threshold is lowered, so that the exact log-det of the same layer is at hand to compare with."""
    action = ImageAction("D4", 2, size=6)
    assert isinstance(g_residual(action).log_det.evaluation, ExactLogDet)
    monkeypatch.setattr(residual, "_DENSE_UP_TO", 70)
    torch.manual_seed(0)
    layer = randomize_(g_residual(action, bound=0.8).double(), scale=0.5)
    evaluation = layer.log_det.evaluator()
    assert isinstance(evaluation, KrylovLogDet)
    assert evaluation.truncation_error(lipschitz=0.8, dim=1) <= 5e-3
    assert "Krylov, difference of two orders <= 0.00072 (observed)" in repr(layer)
    x = torch.randn(3, *action.event_shape, dtype=torch.float64)
    with monkeypatch.context() as patch:
        for module in ("branch", "jacobian"):
            patch.setattr(f"pyro_gflows.numerics.{module}.dense_jacobian", None)
        patch.setattr(LipschitzNetwork, "call_and_jacobian", None)
        sum(part.sum() for part in layer.train().inv_call_and_ladj(x)).backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in layer.parameters())
        layer.eval()
        estimate = layer.inv_call_and_ladj(x)[1].detach()
        assert torch.equal(layer.inv_call_and_ladj(x)[1], estimate)
        assert_invariant(lambda x: layer.inv_call_and_ladj(x)[1], action, x)
    exact = ExactLogDet()(layer.branch, x, 3, lipschitz=0.8, training=False)[1]
    assert (estimate - exact).abs().max() < 0.01 * action.numel


def test_repr_says_what_is_certified():
    action = VectorAction.plane("D4")
    layer = GResidual(action, LipschitzSum([Ridges(action, 1)]), fast="sample")
    assert "fast='sample'" in repr(layer)
    assert "Lipschitz bound 0.99, log-det exact" in repr(layer)  # what holds for all weights


@pytest.mark.parametrize("fast", ["score", "sample"])
@pytest.mark.parametrize("end", ["x", "y"])
def test_the_log_det_of_a_pair_has_its_gradient_at_either_end(fast, end):
    action = VectorAction.plane("D4")
    layer = randomize_(g_residual(action, fast=fast), generator=torch.Generator().manual_seed(0)).double().eval()
    x = torch.randn(3, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        y = layer(x)
    if end == "x":
        x.requires_grad_()
        found, expected = layer.log_abs_det_jacobian(x, y), layer.call_and_ladj(x)[1]
        leaf = x
    else:
        leaf = y.requires_grad_()
        expected = -layer.inv_call_and_ladj(y)[1]
        found = layer.log_abs_det_jacobian(layer.inv(y), y)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)
    (one,), (other,) = torch.autograd.grad(found.sum(), leaf), torch.autograd.grad(expected.sum(), leaf)
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
