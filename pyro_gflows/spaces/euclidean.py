"""Euclidean: all tensors of one shape, with Lebesgue measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces.base import Space

__all__ = ["Euclidean"]

_REAL: dict[int, constraints.Constraint] = {}


@registered
class Euclidean(Space):
    """All real tensors of one shape, with Lebesgue measure: the space of vectors and of images.

    Args:
        event_shape: The shape of an event.

    Raises:
        ValueError: If a size is not positive.

    Example:
        >>> space = Euclidean((3, 8, 8))
        >>> space, space.dimension, space.constraint.event_dim
        (Euclidean(3 x 8 x 8), 192, 3)
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        self.event_shape = torch.Size(event_shape)
        if any(size < 1 for size in self.event_shape):
            raise ValueError(f"expected an event shape of positive sizes, got {tuple(self.event_shape)}")

    @property
    def constraint(self) -> constraints.Constraint:
        # one object for each rank, so that constraints can be compared by identity
        return _REAL.setdefault(self.event_dim, constraints.independent(constraints.real, self.event_dim))

    @property
    def dimension(self) -> int:
        return self.event_shape.numel()

    @property
    def volume(self) -> float:
        return math.inf

    def project(self, x: Tensor) -> Tensor:
        return x

    def tangent_basis(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.ndim - self.event_dim]
        return torch.eye(self.dimension, dtype=x.dtype, device=x.device).expand(*batch, -1, -1)

    def _key(self) -> Any:
        return self.event_shape
