"""Functions as a user writes them: a residual branch with a Lipschitz bound, a map of events, and a density."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_gflows.serialization.registry import registered

__all__ = ["CosineDensity", "Minus", "OwnBranch"]


@registered
class CosineDensity:
    """The density of d angles that is proportional to 1 + a (mean of cos(n x_i))."""

    def __init__(self, amplitude: float, frequency: int = 1) -> None:
        self.amplitude, self.frequency = amplitude, frequency

    def __call__(self, x: Tensor) -> Tensor:
        mean = (self.frequency * x).cos().mean(-1)
        return (1 + self.amplitude * mean).log() - x.shape[-1] * math.log(2 * math.pi)


@registered
class Minus(nn.Module):
    """The map x -> -x, its own inverse, which every linear action commutes with."""

    def forward(self, x: Tensor) -> Tensor:
        return -x


@registered
class OwnBranch(nn.Module):
    r"""The map x -> 0.9 tanh(w) x / sqrt(1 + |x|^2), which is equivariant under all rotations and reflections."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(0.3))

    def forward(self, x: Tensor) -> Tensor:
        return 0.9 * self.factor.tanh() * x / (1 + x.square().sum(-1, keepdim=True)).sqrt()

    def lipschitz_bound(self) -> Tensor:
        return 0.9 * self.factor.tanh().abs()
