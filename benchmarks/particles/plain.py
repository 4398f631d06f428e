"""A coupling flow without the symmetry, which is taught to it by augmentation of its data."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.particles.problems import Problem
from pyro_gflows.actions import CoordinateSplit, LinearAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows import EquivariantFlow
from pyro_gflows.nn import BoundedKnots
from pyro_gflows.transforms import ElementwiseSpline, EquivariantTransform, GActNorm, InCoordinates, g_coupling

__all__ = ["Perceptron", "plain_coupling"]

SPLINE = partial(ElementwiseSpline, bins=8, limit=4.0, knots=BoundedKnots(secant=100.0))


class Perceptron(nn.Module):
    """A network without a symmetry, with two hidden layers, that starts at zero.

    Args:
        action_in: Of the input.
        action_out: Of the output.
        width: Hidden units.
    """

    def __init__(self, action_in: LinearAction, action_out: LinearAction, *, width: int) -> None:
        super().__init__()
        last = nn.Linear(width, action_out.numel)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
        first, second = nn.Linear(action_in.numel, width), nn.Linear(width, width)
        self.layers = nn.Sequential(first, nn.SiLU(), second, nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


def plain_coupling(problem: Problem, *, blocks: int, width: int) -> EquivariantFlow:
    """Spline couplings of halves of the (n - 1) d orthonormal coordinates, another random half in each block."""
    action = problem.action.without_symmetry()
    coordinates = action.coordinates
    count = coordinates.numel
    generator = torch.Generator().manual_seed(0)
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        order = torch.randperm(count, generator=generator).tolist()
        split = CoordinateSplit(coordinates, [sorted(order[: count // 2]), sorted(order[count // 2 :])])
        network = partial(Perceptron, width=width)
        layers.append(g_coupling(coordinates, split=split, transformer=SPLINE, network=network))
    layers.append(GActNorm(coordinates))
    return EquivariantFlow(InvariantNormal(action), [InCoordinates(layer, action) for layer in layers])
