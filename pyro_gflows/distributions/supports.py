"""Properties of supports, and a validation of events that accepts an empty batch."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.distributions import constraints

from pyro_gflows.numerics.transforms_active import anywhere

if TYPE_CHECKING:
    from torch.distributions import Distribution as _Distribution
else:
    _Distribution = object  # the class that follows in the bases brings torch's methods

_Real = type(constraints.real)  # angles have a constraint of their own, which is a subclass

__all__ = ["ValidatesEvents", "interval_of", "is_real"]


def is_real(constraint: constraints.Constraint | None) -> bool:
    """Whether a constraint allows every real number in every coordinate.

    Args:
        constraint: A constraint of torch, or None.

    Example:
        >>> is_real(constraints.independent(constraints.real, 2)), is_real(constraints.positive)
        (True, False)
    """
    return isinstance(_inner(constraint), _Real)


def interval_of(constraint: constraints.Constraint | None) -> tuple[float, float]:
    """The two ends of the interval in which each coordinate lies.

    Args:
        constraint: A constraint of torch, or None.

    Returns:
        The lower and the upper end; (0, 0) if the support is not an interval.

    Example:
        >>> interval_of(constraints.independent(constraints.unit_interval, 1)), interval_of(constraints.real)
        ((0.0, 1.0), (-inf, inf))
    """
    inner: Any = _inner(constraint)
    if isinstance(inner, _Real):
        return -math.inf, math.inf
    if isinstance(inner, constraints.interval):
        return float(inner.lower_bound), float(inner.upper_bound)
    return 0.0, 0.0


def _inner(constraint: constraints.Constraint | None) -> constraints.Constraint | None:
    while isinstance(constraint, constraints.independent):
        constraint = constraint.base_constraint
    return constraint


class ValidatesEvents(_Distribution):
    """A mixin for distributions whose validation accepts a batch without events, as a filter on data may leave one.

    The validation of torch raises "cannot reshape tensor of 0 elements" for such a batch. Nothing is validated while
    ``torch.compile`` records, because it cannot record decisions that depend on values.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> from pyro_gflows.distributions import InvariantNormal
        >>> InvariantNormal(VectorAction.plane("D4")).log_prob(torch.zeros(0, 2)).shape
        torch.Size([0])
    """

    def _validate_sample(self, value: Any) -> None:
        if torch.compiler.is_compiling():
            return  # a decision that depends on values cannot be compiled
        if isinstance(value, Tensor) and self._is_plainly_valid(value):
            return
        if not isinstance(value, Tensor) or value.numel():
            super()._validate_sample(value)
            return
        batch, event = value.shape[: value.ndim - len(self.event_shape)], value.shape[-len(self.event_shape) :]
        if value.ndim < len(self.event_shape) or event != self.event_shape:
            raise ValueError(f"expected values of shape (..., *{tuple(self.event_shape)}), got {tuple(value.shape)}")
        torch.broadcast_shapes(batch, self.batch_shape)

    def _is_plainly_valid(self, value: Tensor) -> bool:
        """Whether one sum shows that the values are valid: real, of the exact shape, and without NaN."""
        rank = value.ndim - len(self.event_shape)
        if value.shape[rank:] != self.event_shape or self.batch_shape not in (torch.Size(), value.shape[:rank]):
            return False
        if not is_real(self.support):
            return False
        total = value.detach().sum()
        return not anywhere(total != total)
