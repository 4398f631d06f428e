"""Gradient maps: bijections that expand, on tori and on R^n, in small and in larger dimensions."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from pyro_gflows import EquivariantFlow, VectorAction
from pyro_gflows.actions import TorusAction
from pyro_gflows.distributions import InvariantUniform
from pyro_gflows.nn import Potential, TorusPotential
from pyro_gflows.numerics import BanachSolver, DampedNewtonSolver, InverseDidNotConverge, periodic_grid
from pyro_gflows.testing import assert_layer, randomize_
from pyro_gflows.transforms import GGradient

SQUARE = TorusAction.point_group("D4")


def steep(action, *, fast="score", shift=3.0):
    """A gradient map with random weights, large and with steep waves, so that it expands and shrinks."""
    layer = GGradient(action, TorusPotential(action, frequencies=3, waves=3), fast=fast).double()
    randomize_(layer, scale=1.0, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        layer.potential.weight.add_(shift)
        layer.potential.radius.add_(shift)
    return layer


class Softened(Potential):
    """V(x) = a sqrt(1 + |x|^2) on R^n, which expands near 0; the derivatives come from autograd."""

    def __init__(self, action, bound=0.0):
        super().__init__()
        self.action, self.bound = action, bound
        self.size = nn.Parameter(torch.tensor(3.0))

    def forward(self, x):
        return self.size.square() * x / (1 + x.square().sum(-1, keepdim=True)).sqrt()

    def curvature_bound(self):
        return torch.as_tensor(self.bound)


@pytest.mark.parametrize("fast", ["score", "sample"])
@pytest.mark.parametrize(
    "action", [SQUARE, TorusAction.trivial(1), TorusAction.point_group(VectorAction.rows("S5"))], ids=str
)
def test_it_is_a_layer_with_steep_slopes(action, fast):
    layer = steep(action, fast=fast)
    x = 3 * torch.randn(3, action.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert_layer(layer, x)
    y = layer(x)
    assert ((y >= 0) & (y < 2 * math.pi)).all()
    slopes = torch.linalg.eigvalsh(
        layer.potential.call_and_jacobian(6 * torch.rand(500, action.numel, dtype=torch.float64))[1]
    )
    assert slopes.max() > 3


@pytest.mark.parametrize("action", [VectorAction.plane("O(2)"), VectorAction.space("O(3)", copies=2)], ids=str)
def test_potentials_on_vectors(action):
    layer = GGradient(action, Softened(action)).double()
    assert_layer(layer, torch.randn(3, action.numel, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))


def test_it_wraps_around_the_torus_once():
    """Every density stays a density: the mean of exp(log-det) over the torus is 1."""
    layer = steep(SQUARE, fast="sample", shift=0.0)
    with torch.no_grad():
        _, ladj = layer.call_and_ladj(periodic_grid(128, 2).reshape(-1, 2))
        _, inverse_ladj = layer.inv_call_and_ladj(periodic_grid(64, 2).reshape(-1, 2))
    assert ladj.exp().mean().item() == pytest.approx(1, abs=1e-5)
    assert inverse_ladj.exp().mean().item() == pytest.approx(1, abs=1e-3)
    assert inverse_ladj.min() < -0.5


def test_gradients_through_the_inverse_in_many_dimensions():
    """The implicit function theorem where the Jacobian is no contraction and the event is large."""
    action = TorusAction.point_group(VectorAction.rows("S5"))
    layer = steep(action)
    x = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    weights = [*layer.parameters()]
    direction = [torch.randn(w.shape, dtype=w.dtype, generator=torch.Generator().manual_seed(3)) for w in weights]

    def total():
        y, ladj = layer.call_and_ladj(x)
        return y.sin().sum() + ladj.sum()

    found = torch.autograd.grad(total(), weights)
    slope = sum((g * v).sum().item() for g, v in zip(found, direction, strict=True))
    values = []
    with torch.no_grad():
        for step in (1e-5, -2e-5):
            for weight, v in zip(weights, direction, strict=True):
                weight.add_(v, alpha=step)
            values.append(total().item())
    assert slope == pytest.approx((values[0] - values[1]) / 2e-5, rel=1e-5)


def test_a_flow_learns_a_density_under_which_no_split_is_invariant():
    """D4 acts on two angles without an invariant split; the energy fit brings the KL divergence down by a factor."""
    torch.manual_seed(0)
    layers = [GGradient(SQUARE, TorusPotential(SQUARE, frequencies=2, waves=2), fast="sample") for _ in range(2)]
    flow = EquivariantFlow(InvariantUniform(SQUARE), layers).double()
    x = periodic_grid(24, 2).reshape(-1, 2)

    def target(y):
        return 0.8 * y.cos().sum(-1) + 0.8 * y.cos().prod(-1)

    fine = periodic_grid(96, 2).reshape(-1, 2)
    log_mass = target(fine).exp().mean().log()

    def gap(x):
        """The KL divergence of the flow from the target, by the sum over a grid of points of the base."""
        y, ladj = flow.transform.call_and_ladj(x)
        return -(ladj + target(y)).mean() + log_mass

    before = gap(fine).item()
    optimizer = torch.optim.Adam(flow.parameters(), 0.05)
    for _ in range(80):
        optimizer.zero_grad()
        gap(x + 2 * math.pi * torch.rand(2, dtype=torch.float64)).backward()
        optimizer.step()
    assert 0 < gap(fine).item() < 0.03 * before


def test_a_solver_that_does_not_converge_says_so():
    layer = GGradient(SQUARE, steep(SQUARE).potential, solver=DampedNewtonSolver(max_iterations=1)).double()
    with pytest.raises(InverseDidNotConverge, match="DampedNewtonSolver stopped after 1 iterations"):
        layer(torch.ones(3, 2, dtype=torch.float64))


BAD = {
    "no potential": (lambda: GGradient(SQUARE, nn.Linear(2, 2)), TypeError, "a Potential such as .*, got Linear"),
    "solver": (
        lambda: GGradient(SQUARE, TorusPotential(SQUARE), solver=BanachSolver),
        TypeError,
        "expected solver to be a Solver of pyro_gflows.numerics, got",
    ),
    "other action": (
        lambda: GGradient(SQUARE, TorusPotential(TorusAction.trivial(2))),
        ValueError,
        r"a potential for TorusAction\(D4 on T\^2\), got one for TorusAction\(C1 on T\^2\)",
    ),
    "no bound": (
        lambda: GGradient(VectorAction.plane("C4"), Softened(VectorAction.plane("C4"), bound=1.5)),
        ValueError,
        "a curvature bound below 1, got 1.5; scale it down",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input(name):
    make, error, message = BAD[name]
    with pytest.raises(error, match=message):
        make()
