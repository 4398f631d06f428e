"""Euclidean: all tensors of one shape, with Lebesgue measure."""

from __future__ import annotations

import math

from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces.flat import Flat

__all__ = ["Euclidean"]

_REAL: dict[int, constraints.Constraint] = {}


@registered
class Euclidean(Flat):
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

    @property
    def constraint(self) -> constraints.Constraint:
        # one object for each rank, so that constraints can be compared by identity
        known = _REAL.get(self.event_dim)
        if known is None:
            known = _REAL.setdefault(self.event_dim, constraints.independent(constraints.real, self.event_dim))
        return known

    @property
    def volume(self) -> float:
        return math.inf

    def project(self, x: Tensor) -> Tensor:
        return x
