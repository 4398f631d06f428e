"""Solvers leave out rows that are done, wherever the branch can be restricted to the others."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gflows import GResidual, VectorAction
from pyro_gflows.nn import ConditionalBranch, Contraction
from pyro_gflows.nn.contraction import negative
from pyro_gflows.numerics import AndersonSolver, BanachSolver, NewtonSolver, as_branch
from pyro_gflows.numerics.counted import Counted
from pyro_gflows.testing import randomize_
from tests.numerics.branches import AnalyticBranch

SOLVERS = {"banach": BanachSolver, "anderson": AndersonSolver, "newton": NewtonSolver}


class Recorded(Contraction):
    """A branch that notes the batch of every evaluation; some rows are harder than others."""

    bound = 0.98

    def __init__(self, size):
        super().__init__()
        self.action, self.batches = VectorAction.trivial("C1", copies=size), []
        self.inner = AnalyticBranch((size,), lipschitz=0.98)

    def forward(self, x):
        self.batches.append(tuple(x.shape[:-1]))
        return self.inner(x)

    def call_and_jacobian(self, x):
        self.batches.append(tuple(x.shape[:-1]))
        return self.inner.call_and_jacobian(x)


def events(*batch, size=3):
    """Events of which most solve themselves, since f is flat far from the origin."""
    x = torch.randn(*batch, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hard = torch.arange(math.prod(batch)).reshape(batch) % 4 == 0
    return torch.where(hard[..., None], x, 1e3 * x)


@pytest.mark.parametrize("batch", [(100,), (4, 25), (2, 2, 25)], ids=str)
@pytest.mark.parametrize("name", SOLVERS)
def test_rows_that_are_done_are_left_out(name, batch):
    f, y, solver = Recorded(3), events(*batch), SOLVERS[name](tolerance=1e-9)
    root, report = solver(f, y, 1, lipschitz=0.98)
    assert root.shape == y.shape and report.converged
    assert (y - root - f.inner(root)).abs().max() <= 1e-9
    sizes = [math.prod(shape) for shape in f.batches]
    assert sizes[0] == 100 and sizes == sorted(sizes, reverse=True) and sizes[-1] <= 25
    assert all(len(shape) == 1 for shape in f.batches if math.prod(shape) < 100)
    assert report.evaluations == len(sizes)
    # Newton's method needs the Jacobian at the first point as well
    assert report.iterations == len(sizes) - (2 if name == "newton" else 1)


@pytest.mark.parametrize("name", SOLVERS)
def test_the_root_is_the_same_as_without_leaving_out(name):
    f, y = Recorded(3), events(100)
    root, report = SOLVERS[name]()(f, y, 1, lipschitz=0.98)
    plain = as_branch(lambda x: f.inner(x), 1)  # a callable that may hold anything of the batch keeps its batch
    together, whole = SOLVERS[name]()(plain, y, 1, lipschitz=0.98)
    torch.testing.assert_close(root, together, rtol=1e-15, atol=1e-13)
    assert abs(report.iterations - whole.iterations) <= 1
    alone = torch.stack([SOLVERS[name]()(f, row, 1, lipschitz=0.98)[0] for row in y])
    torch.testing.assert_close(root, alone, rtol=1e-15, atol=1e-13)


def test_one_bad_row_does_not_keep_the_others():
    f, y = Recorded(6), events(100, size=6)
    y[50, 1] = math.nan
    root, report = AndersonSolver(strict=False)(f, y, 1, lipschitz=0.98)
    assert not report.converged and report.iterations < 40 and root[50].isnan().any()
    others = torch.arange(100) != 50
    assert (y - root - f.inner(root))[others].abs().max() < 1e-9


@pytest.mark.parametrize("sign", [1, -1])
def test_contexts_follow_the_rows_that_remain(sign):
    action = VectorAction.regular("C4")
    branch = randomize_(ConditionalBranch(action, action, bound=0.95).double(), scale=1.0)
    context, y = events(5, 20, size=4).tanh(), events(5, 20, size=4)
    f = branch.condition(context)
    f = f if sign == 1 else negative(f)
    seen = []
    hook = branch.network.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[0].shape[:-1].numel()))
    root, report = AndersonSolver()(f, y, 1, lipschitz=0.95)
    hook.remove()
    assert min(seen) < 100 and report.converged
    assert (y - root - f(root)).abs().max() < 1e-9
    plain, _ = AndersonSolver()(lambda x: f(x), y, 1, lipschitz=0.95)
    torch.testing.assert_close(root, plain, rtol=1e-15, atol=1e-12)


def test_a_conditional_layer_inverts_with_one_context_for_the_whole_batch():
    action = VectorAction.regular("C4")
    layer = GResidual(action, randomize_(ConditionalBranch(action, action, bound=0.9).double(), scale=1.0))
    x, context = events(100, size=4), torch.ones(4, dtype=torch.float64)
    y = layer.one_pass(x, context)[0]
    torch.testing.assert_close(layer.many_passes(y, context)[0], x, rtol=1e-11, atol=1e-10)


def test_a_branch_that_cannot_be_restricted_keeps_its_batch():
    shift, y, seen = events(100), events(100), []

    def f(x):
        seen.append(len(x))
        return 0.9 * (x + shift).sin()

    for branch in (f, negative(as_branch(f, 1))):
        _, report = BanachSolver()(branch, y, 1, lipschitz=0.9)
        assert report.converged and set(seen) == {100}


def test_a_counted_branch_is_like_the_branch():
    branch = Recorded(3)
    counted = Counted(branch)
    x = events(5)
    assert isinstance(counted, Recorded) and not isinstance(counted, NewtonSolver)
    torch.testing.assert_close(counted.call_and_jacobian(x), branch.call_and_jacobian(x))
    assert counted.call_and_pullback(x)[0].shape == x.shape and counted(x).shape == x.shape
    assert counted.evaluations == 3 and counted.bound == 0.98
    with pytest.raises(AttributeError, match="nothing"):
        _ = counted.nothing
