"""Questions about supports, and the validation of events that also takes none of them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import constraints

__all__ = ["ValidatesEvents", "interval_of", "is_real"]


def is_real(constraint: constraints.Constraint | None) -> bool:
    """Whether a constraint allows every real number in every place.

    >>> is_real(constraints.independent(constraints.real, 2)), is_real(constraints.positive)
    (True, False)
    """
    return _inner(constraint) is constraints.real


def interval_of(constraint: constraints.Constraint | None) -> tuple[float, float]:
    """The ends of the interval in which each coordinate lies; of a support that is no interval, an empty one at 0.

    >>> interval_of(constraints.independent(constraints.unit_interval, 1)), interval_of(constraints.real)
    ((0.0, 1.0), (-inf, inf))
    """
    inner: Any = _inner(constraint)
    if inner is constraints.real:
        return -math.inf, math.inf
    if isinstance(inner, constraints.interval):
        return float(inner.lower_bound), float(inner.upper_bound)
    return 0.0, 0.0


def _inner(constraint: constraints.Constraint | None) -> constraints.Constraint | None:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint


class ValidatesEvents:
    """Before a distribution: its validation accepts a batch without events, as a filter on data may leave one.

    That of torch stops with "cannot reshape tensor of 0 elements" for all distributions of events. While
    ``torch.compile`` records, nothing is validated: what depends on values cannot be recorded.
    """

    batch_shape: torch.Size
    event_shape: torch.Size

    def _validate_sample(self, value: Any) -> None:
        if torch.compiler.is_compiling():
            return  # what depends on values cannot be compiled
        if not isinstance(value, Tensor) or value.numel():
            super()._validate_sample(value)  # type: ignore[misc]
            return
        batch, event = value.shape[: value.ndim - len(self.event_shape)], value.shape[-len(self.event_shape) :]
        if value.ndim < len(self.event_shape) or event != self.event_shape:
            raise ValueError(f"expected values of shape (..., *{tuple(self.event_shape)}), got {tuple(value.shape)}")
        torch.broadcast_shapes(batch, self.batch_shape)
