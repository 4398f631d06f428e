"""Newton's method with shortened steps, on maps that expand, and the derivatives of its roots."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gflows.numerics import DampedNewtonSolver, InverseDidNotConverge, implicit_root
from pyro_gflows.serialization.registry import build, describe


def values(dimension, n=200):
    return 50 * torch.randn(n, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


def stiff(x):
    """A map with slopes between 0.01 and 30, so that full Newton steps overshoot."""
    return 30 * (10 * x).atan() / 10 - 0.99 * x


@pytest.mark.parametrize("dimension", [1, 2, 5])
def test_roots_of_maps_that_expand(dimension):
    y = values(dimension)
    root, report = DampedNewtonSolver()(stiff, y, 1, lipschitz=math.inf)
    torch.testing.assert_close(root + stiff(root), y, rtol=0, atol=1e-9)
    assert report.converged and report.iterations < 60


def test_full_steps_overshoot_on_these_maps():
    """The test above would say nothing if Newton's method converged without shorter steps."""
    y, x = values(1), values(1)
    for _ in range(60):
        slope = 1 + 30 / (1 + (10 * x).square()) - 0.99
        x = x - (x + stiff(x) - y) / slope
    assert not ((x + stiff(x) - y).abs() < 1e-6).all()


def test_the_start_is_the_first_point():
    y = values(2)
    root, report = DampedNewtonSolver()(stiff, y, 1, lipschitz=math.inf)
    again, at_once = DampedNewtonSolver()(stiff, y, 1, lipschitz=math.inf, start=root)
    assert at_once.iterations == 0 and torch.equal(again, root) and report.iterations > 0


@pytest.mark.parametrize("dimension", [2, 5])
def test_derivatives_of_the_root(dimension):
    y = values(dimension, 3).requires_grad_()
    with torch.no_grad():
        root, _ = DampedNewtonSolver()(stiff, y, 1, lipschitz=math.inf)
    x = implicit_root(stiff, y, root, 1, lipschitz=math.inf)
    slope = 1 + 30 / (1 + (10 * root).square()) - 0.99
    (gradient,) = torch.autograd.grad(x.sum(), y, create_graph=True)
    torch.testing.assert_close(gradient, 1 / slope)
    bend = -30 * 200 * root / (1 + (10 * root).square()).square()
    (second,) = torch.autograd.grad(gradient.sum(), y)
    torch.testing.assert_close(second, -bend / slope**3)


def test_a_row_that_is_not_finite_is_given_up_and_does_not_stop_the_others():
    y = values(2, 3)
    y[1, 0] = math.nan
    root, report = DampedNewtonSolver(strict=False)(stiff, y, 1, lipschitz=math.inf)
    assert not report.converged
    torch.testing.assert_close((root + stiff(root))[[0, 2]], y[[0, 2]], rtol=0, atol=1e-9)
    with pytest.raises(InverseDidNotConverge, match="DampedNewtonSolver stopped"):
        DampedNewtonSolver()(stiff, y, 1, lipschitz=math.inf)


def test_it_is_described():
    solver = build(describe(DampedNewtonSolver(tolerance=1e-6)))
    assert isinstance(solver, DampedNewtonSolver) and solver.tolerance == 1e-6
