"""Runge-Kutta steps against a closed-form flow, and their Jacobian against automatic differentiation."""

from __future__ import annotations

import math

import pytest
import torch

from pyro_gflows.numerics import runge_kutta, runge_kutta_with_jacobian


def velocity(t, x):
    """dx/dt = (1 + t) (-y, x) + cos(t) (x, y): a rotation and a dilation."""
    rotated = torch.stack([-x[..., 1], x[..., 0]], -1)
    return (1 + t) * rotated + math.cos(t) * x


def bent(t, x):
    return torch.stack([x.sin().prod(-1) + t, (x[..., 0] * t).cos()], -1)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.25)])
def test_the_error_decays_with_the_fourth_power(start, end):
    x = torch.tensor([[1.0, 0.3]], dtype=torch.float64)
    angle = (end + end**2 / 2) - (start + start**2 / 2)
    size = math.exp(math.sin(end) - math.sin(start))
    cosine, sine = math.cos(angle), math.sin(angle)
    rotation = torch.tensor([[cosine, -sine], [sine, cosine]], dtype=torch.float64)
    exact = size * x @ rotation.mT
    errors = [(runge_kutta(velocity, x, steps=n, start=start, end=end) - exact).norm().item() for n in (8, 16, 32)]
    assert errors[2] < 1e-6
    assert math.log2(errors[0] / errors[1]) == pytest.approx(4, abs=0.2)
    assert math.log2(errors[1] / errors[2]) == pytest.approx(4, abs=0.1)


@pytest.mark.parametrize(("start", "end"), [(0.0, 1.0), (1.0, 0.0)])
def test_the_jacobian_is_that_of_the_steps(start, end):
    x = torch.randn(4, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    def with_jacobian(t, x):
        jacobian = torch.func.vmap(torch.func.jacrev(lambda point: bent(t, point)))(x)
        return bent(t, x), jacobian

    y, jacobian = runge_kutta_with_jacobian(with_jacobian, x, steps=3, start=start, end=end)

    def steps(point):
        return runge_kutta(bent, point, steps=3, start=start, end=end)

    torch.testing.assert_close(y, steps(x), rtol=0, atol=1e-14)
    torch.testing.assert_close(jacobian, torch.func.vmap(torch.func.jacrev(steps))(x), rtol=0, atol=1e-13)
