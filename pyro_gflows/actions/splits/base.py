"""Split: an event taken apart so that the group acts on each part separately."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.numerics.constants import made_once
from pyro_gflows.numerics.precision import on_methods

__all__ = ["Split", "balanced_halves", "require_split"]


class Split(ABC):
    r"""A way to take an event apart, :math:`x \mapsto (x_1, \dots, x_k)`, so that the group acts on each part.

    This is the base class of all splits. The ready-made ones are :class:`CoordinateSplit` for vectors,
    :class:`ChannelSplit` and :class:`MaskSplit` for images, :class:`IrrepSplit` for both, and :class:`TorusSplit` for
    angles; :func:`~pyro_gflows.actions.default_split` chooses one. A coupling layer reads one part of an event and
    changes the other. For the layer to be equivariant, the group must act on each part separately: the parts of
    :math:`g\,x` are :math:`(g\,x_1, \dots, g\,x_k)`. A split is an orthogonal bijection, so its log-det is 0. Like an
    action, it is a plain value.

    Attributes:
        action: How the group acts on the whole event.
        parts: How the group acts on each part; of angles without translations.

    Example:
        >>> import torch
        >>> from pyro_gflows.actions import CoordinateSplit, VectorAction
        >>> split = CoordinateSplit(VectorAction.plane("D4", copies=2))
        >>> x = torch.arange(4.0)
        >>> isinstance(split, Split), torch.equal(split.merge(split.split(x)), x)
        (True, True)
    """

    action: Action
    parts: tuple[LinearAction, ...]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        on_methods(cls, ("split", "merge"))

    @abstractmethod
    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The parts of events.

        Args:
            x: Events, shape ``batch_shape + event_shape``.

        Returns:
            The events of each part.
        """

    @abstractmethod
    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """The events with these parts, which inverts :meth:`split`.

        Args:
            parts: The events of each part.
        """

    def ordered(self, x: Tensor) -> Tensor:
        """The parts of events, one after the other in one tensor, along the dimension of the fields.

        Args:
            x: Events, shape ``batch_shape + event_shape``.
        """
        return torch.cat(list(self.split(x)), -self.action.event_dim)

    def unordered(self, x: Tensor) -> Tensor:
        """The events whose parts lie one after the other in x, which inverts :meth:`ordered`.

        Args:
            x: The parts, in one tensor.
        """
        dim = -self.action.event_dim
        return self.merge(x.split([part.event_shape[dim] for part in self.parts], dim))

    def restrict(self, index: int, values: Tensor) -> Tensor:
        """Events of a part with 0 in place of every entry that is not the part's own.

        Args:
            index: The index of the part.
            values: Events of that part.
        """
        return values

    @property
    def is_slicing(self) -> bool:
        """Whether the parts have as many entries in all as the event (the parts of a mask are whole events)."""
        return sum(part.numel for part in self.parts) == self.action.numel

    def check_parts(self, parts: Sequence[Tensor]) -> None:
        """Raise an error unless there is one event for each part.

        Args:
            parts: The events of each part.

        Raises:
            TypeError: A part is not a floating-point tensor.
            ValueError: The number of parts, or the shape of one, is wrong.
        """
        if len(parts) != len(self.parts):
            raise ValueError(f"expected {len(self.parts)} parts for {self}, got {len(parts)}")
        for index, (action, part) in enumerate(zip(self.parts, parts, strict=True)):
            action.check_event(part, f"part {index}")

    @made_once
    def _tables(self) -> dict[Any, Tensor]:
        return {}

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_tables"}

    @abstractmethod
    def _key(self) -> Any:
        """A value that is equal for equal splits of one action."""

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and isinstance(other, Split) and self._full_key() == other._full_key()

    def __hash__(self) -> int:
        return hash(self._full_key())

    def _full_key(self) -> Any:
        return (type(self).__name__, self.action, self.parts, self._key())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({' | '.join(map(str, self.parts))})"


def require_split(split: Any) -> Split:
    """The split itself, else an error.

    Args:
        split: Any object.

    Raises:
        TypeError: The object is not a split.

    Example:
        >>> from pyro_gflows.actions import CoordinateSplit, VectorAction
        >>> split = CoordinateSplit(VectorAction.plane("D4", copies=2))
        >>> require_split(split) is split
        True
    """
    if not isinstance(split, Split):
        raise TypeError(f"expected a split such as CoordinateSplit(action), got {type(split).__name__}")
    return split


def balanced_halves(sizes: Sequence[int]) -> list[list[int]]:
    """Two lists of indices whose sizes add up to about the same.

    Indices are taken in order of decreasing size, and each goes to the list with the smaller sum.

    Args:
        sizes: The size of each index.

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
