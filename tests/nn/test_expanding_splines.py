"""Splines whose slope has a lower bound only: the value is the integral of the slope, beyond the last knot too."""

from __future__ import annotations

import itertools

import pytest
import torch

from pyro_gflows.nn import ExpandingSplines


def bank(scale=3.0, count=3):
    torch.manual_seed(0)
    return ExpandingSplines(count, knots=6, limit=2.5, start=scale).double()


@pytest.mark.parametrize("end", [0.3, 1.9, 2.5, 4.0, 40.0, -3.0])
def test_the_value_is_the_integral_of_the_slope(end):
    """Gauss' rule on each piece is exact, as the slope is linear there."""
    splines = bank()
    nodes, weights = torch.tensor([-1, 1], dtype=torch.float64) / 3**0.5, torch.ones(2, dtype=torch.float64)
    knots = [each for each in (0.5 * torch.arange(6)).tolist() if each < abs(end)] + [abs(end)]
    total = torch.zeros(3, dtype=torch.float64)
    for first, last in itertools.pairwise(knots):
        half = (last - first) / 2
        points = (first + last) / 2 + half * nodes
        total += (half * weights * splines(points, torch.arange(3)[:, None])[1]).sum(-1)
    value, _ = splines(torch.tensor(end, dtype=torch.float64), torch.arange(3))
    assert torch.allclose(value, total if end > 0 else -total, rtol=1e-13, atol=1e-13)


def test_the_slope_is_the_derivative_of_the_value():
    splines = bank()
    t = torch.linspace(-9, 9, 301, dtype=torch.float64, requires_grad=True)
    value, slope = splines(t, 1)
    assert torch.allclose(torch.autograd.grad(value.sum(), t)[0], slope, atol=1e-12)


def test_the_slope_at_the_knots_and_beyond():
    splines = bank()
    knots = torch.cat([0.5 * torch.arange(6), torch.tensor([2.6, 100.0])]).double()
    _, slope = splines(knots, torch.arange(3)[:, None])
    expected = splines.slopes()
    assert torch.allclose(slope, torch.cat([expected, expected[:, -1:].expand(3, 2)], 1), atol=1e-12)


def test_bounds_and_start():
    splines = bank(scale=30.0, count=50)
    slopes = splines.slopes()
    assert slopes.min() >= -1
    assert slopes.max() > 50
    value, slope = ExpandingSplines(2)(torch.rand(5, 2), torch.arange(2))
    assert value.abs().max() < 1e-6
    assert slope.abs().max() < 1e-6
    assert "slope > -1" in str(splines)
