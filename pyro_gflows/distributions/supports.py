"""Questions about supports, and the validation of events that also takes none of them."""

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
    _Distribution = object  # what it stands before brings torch's methods

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


class ValidatesEvents(_Distribution):
    """Before a distribution: its validation accepts a batch without events, as a filter on data may leave one.

    That of torch stops with "cannot reshape tensor of 0 elements" for all distributions of events. While
    ``torch.compile`` records, nothing is validated: what depends on values cannot be recorded.
    """

    def _validate_sample(self, value: Any) -> None:
        if torch.compiler.is_compiling():
            return  # what depends on values cannot be compiled
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
        """Whether one sum says that all is well: real numbers of the very shape, none of which is NaN."""
        rank = value.ndim - len(self.event_shape)
        if value.shape[rank:] != self.event_shape or self.batch_shape not in (torch.Size(), value.shape[:rank]):
            return False
        if not is_real(self.support):
            return False
        total = value.detach().sum()
        return not anywhere(total != total)
