"""Maps as a user writes them: a residual branch with a Lipschitz bound, and a map of events."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.serialization.registry import registered

__all__ = ["Minus", "OwnBranch"]


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
