"""The effect of particles that are still to be placed on where the next one goes."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["LookAhead"]


class LookAhead(nn.Module):
    r"""A small network of distances, for the part of a placement that no sum over pairs describes.

    Where the next particle goes depends on the placed particles by their forces on it, and also by the room that is
    left for those to come. The latter is a smooth many-body function. Here it is a network of smooth features of the
    distances (Gaussian bumps): those of the position from the center, those from the other placed particles, summed,
    and those between placed particles, summed. It sees distances only, so it is invariant under rotations and
    reflections. It starts at 0.

    Args:
        shortest: The center of the first bump.
        longest: The center of the last bump.
        steps: The number of steps of placement, each of which has a bias of its own.
        features: The number of bumps.
        width: The hidden features.

    Example:
        >>> network = LookAhead(1.0, 8.0, steps=3)
        >>> network(0, torch.rand(5, 7), torch.rand(5, 2, 7, 11), torch.rand(5, 3)).shape
        torch.Size([5, 7, 11])
    """

    centers: Tensor

    def __init__(self, shortest: float, longest: float, *, steps: int, features: int = 14, width: int = 24) -> None:
        super().__init__()
        self.register_buffer("centers", torch.linspace(shortest, longest, features), persistent=False)
        self.spacing = (longest - shortest) / (features - 1)
        self.own = nn.Linear(features, width, bias=False)
        self.others = nn.Linear(features, width, bias=False)
        self.placed = nn.Linear(features, width, bias=False)
        self.bias = nn.Parameter(0.3 * torch.randn(steps, width))
        self.hidden = nn.Linear(width, width)
        self.out = nn.Linear(width, 1, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(self, step: int, radii: Tensor, distances: Tensor, placed: Tensor) -> Tensor:
        """The log-weights of positions on a grid of radii and directions.

        Args:
            step: The step of placement, from 0.
            radii: Distances of the positions from the center, shape ``(batch, radii)``.
            distances: Those from the other placed particles, shape ``(batch, particles, radii, directions)``.
            placed: Those between placed particles, shape ``(batch, pairs)``.

        Returns:
            Shape ``(batch, radii, directions)``.
        """
        others = torch.stack([self._bump(distances, center).sum(1) for center in self.centers], -1)
        context = self.placed(self._bumps(placed).sum(-2)) + self.bias[step]
        hidden = self.others(others) + self.own(self._bumps(radii))[:, :, None] + context[:, None, None]
        value: Tensor = self.out(functional.silu(self.hidden(functional.silu(hidden))))
        return value[..., 0]

    def _bump(self, distances: Tensor, center: Tensor) -> Tensor:
        return (-0.5 * ((distances - center) / self.spacing).square()).exp()

    def _bumps(self, distances: Tensor) -> Tensor:
        return self._bump(distances[..., None], self.centers)
