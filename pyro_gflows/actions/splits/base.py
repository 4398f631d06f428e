"""Split: how an event falls into parts that every group element maps to themselves."""

from __future__ import annotations

import functools
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from torch import Tensor

from pyro_gflows.actions.base import LinearAction
from pyro_gflows.numerics.precision import on_methods

__all__ = ["Split", "balanced_halves", "require_split"]


class Split(ABC):
    r"""An orthogonal bijection of an event with its parts, :math:`x \mapsto (x_1, \dots, x_k)`.

    Every part is an event that moves by an action of its own, :math:`g\,x \mapsto (g\,x_1, \dots, g\,x_k)`; the log-det
    is 0. A split is a plain value, as an action is.
    """

    action: LinearAction
    parts: tuple[LinearAction, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, ("split", "merge"))

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The events of the parts."""

    @abstractmethod
    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """The event that :meth:`split` takes apart."""

    def restrict(self, index: int, values: Tensor) -> Tensor:
        """``values``, an event of part ``index``, with 0 wherever the part has no entry of its own."""
        return values

    @property
    def is_slicing(self) -> bool:
        """Whether every entry of the parts is one of the event: masks keep whole events, with zeros in them."""
        return sum(part.numel for part in self.parts) == self.action.numel

    def check_parts(self, parts: Sequence[Tensor]) -> None:
        """Raise ValueError unless there is one event for each part."""
        if len(parts) != len(self.parts):
            raise ValueError(f"expected {len(self.parts)} parts for {self}, got {len(parts)}")
        for index, (action, part) in enumerate(zip(self.parts, parts, strict=True)):
            action.check_event(part, f"part {index}")

    @functools.cached_property
    def _tables(self) -> dict[Any, Tensor]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_tables"}

    @abstractmethod
    def _key(self) -> Any:
        """What two equal splits of one action share."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Split) and self._full_key() == other._full_key()

    def __hash__(self) -> int:
        return hash(self._full_key())

    def _full_key(self) -> Any:
        return (type(self).__name__, self.action, self.parts, self._key())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' | '.join(map(str, self.parts))})"


def require_split(split: Any) -> Split:
    """The split itself; TypeError where something else was given."""
    if not isinstance(split, Split):
        raise TypeError(f"expected a split such as CoordinateSplit(action), got {type(split).__name__}")
    return split


def balanced_halves(sizes: Sequence[int]) -> list[list[int]]:
    """Two lists of indices whose sizes add up to about the same: the largest first, each to the lighter side.

    Example:
        >>> balanced_halves([1, 4, 1, 2])
        [[1], [0, 2, 3]]
    """
    halves: list[list[int]] = [[], []]
    weights = [0, 0]
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        lighter = int(weights[1] < weights[0])
        halves[lighter].append(index)
        weights[lighter] += sizes[index]
    return [sorted(half) for half in halves]
