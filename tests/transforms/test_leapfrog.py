"""Leapfrog steps: symplectic, reversible, and those of an oscillator at the start."""

from __future__ import annotations

import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantNormal, ParticleAction, VectorAction, augment
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import GActNorm, GLeapfrog

ACTIONS = [
    ParticleAction(4, 2),
    ParticleAction((2, 1, 2), 3, group="SO(3)"),
    ParticleAction((1, 2), 2, group="C1", center="free"),
    ParticleAction(2, 1),
]


def layer_on(action, *, steps=2, scale=1.0):
    layer = GLeapfrog(action, steps=steps, knots=6, limit=4.0).double()
    randomize_(layer, scale=scale, generator=torch.Generator().manual_seed(1))
    return layer


def events(layer, *batch):
    generator = torch.Generator().manual_seed(0)
    return torch.randn(*batch, layer.action_in.numel, dtype=torch.float64, generator=generator)


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_it_is_a_layer(action):
    layer = layer_on(action)
    x = events(layer, 3)
    assert_layer(layer, x)
    assert (layer(x) - x).abs().max() > 0.1


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_it_is_symplectic(action):
    """The Jacobian keeps the form dx dv, which says more than that it keeps volumes."""
    layer = layer_on(action)
    x = events(layer)
    half = len(x) // 2
    zero, one = torch.zeros(half, half).double(), torch.eye(half).double()
    form = torch.cat([torch.cat([zero, one], 1), torch.cat([-one, zero], 1)])
    jacobian = torch.func.jacrev(layer)(x)
    assert torch.allclose(jacobian.T @ form @ jacobian, form, atol=1e-10)


def test_reversed_momenta_run_backward():
    layer = layer_on(ACTIONS[0])
    sign = torch.tensor([1.0] * 6 + [-1.0] * 6).double()
    x = events(layer, 5)
    assert torch.allclose(layer.inv(x), sign * layer(sign * x), atol=1e-12)


@pytest.mark.parametrize("steps", [1, 3])
def test_the_oscillator_of_the_start(steps):
    h = 0.5
    step = torch.tensor([[1 - h**2 / 2, h], [-h * (1 - h**2 / 4), 1 - h**2 / 2]], dtype=torch.float64)
    layer = GLeapfrog(ACTIONS[0], steps=steps, step_size=h).double()
    x = events(layer, 5)
    expected = torch.linalg.matrix_power(step, steps) @ x.unflatten(-1, (2, 6))
    assert torch.allclose(layer(x), expected.flatten(-2), atol=1e-12)


def test_momenta_are_integrated_out():
    """A density of the positions alone, which integrates to 1."""
    action = ACTIONS[-1]
    layer = layer_on(action)
    joint = EquivariantFlow(InvariantNormal(layer.action_in), [layer, GActNorm(layer.action_in)]).double()
    grid = torch.linspace(-7, 7, 141, dtype=torch.float64)
    pairs = torch.cartesian_prod(grid, grid)
    with torch.no_grad():
        total = joint(pairs).exp().reshape(141, 141).sum(1) * 0.1
        assert total.sum().item() * 0.1 == pytest.approx(1, abs=1e-2)
        density = augment(joint, padding=action.coordinates, draws=4096).eval()
        error = density(grid[40:101:20, None]).exp() - total[40:101:20]
    assert error.abs().max() < 0.05 * total.max()


def test_bad_input():
    with pytest.raises(TypeError, match="a ParticleAction such as"):
        GLeapfrog(VectorAction.plane("D4"))
    with pytest.raises(ValueError, match="steps >= 1 and step_size > 0, got 0 and 0.5"):
        GLeapfrog(ACTIONS[0], steps=0)
