"""What a layer reads of the parts of an event, and the coordinates in which it transforms one part."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import Action, LinearAction, Split, TorusSplit
from pyro_gflows.nn import Harmonics
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.numerics.angles import wrap_angle
from pyro_gflows.transforms.circular_transformer import ElementwiseCircularSpline
from pyro_gflows.transforms.default_transformer import default_transformer
from pyro_gflows.transforms.transformers import Transformer, TransformerFactory

__all__ = ["PartFrame", "PartReading", "can_be_transformed", "frame_of", "reading_of"]


class PartReading:
    """What a network reads of some parts of an event: the parts themselves.

    Attributes:
        actions: How the group acts on the features, one action for each tensor.
    """

    def __init__(self, split: Split, parts: Sequence[int]) -> None:
        self.actions: list[LinearAction] = [split.parts[index] for index in parts]
        self._parts = tuple(parts)

    def __call__(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The features, from all parts of the event."""
        return [parts[index] for index in self._parts]


class _AngleReading(nn.Module):
    """What a network reads of some angles: cosines and sines of their integer combinations; 1 if there are none."""

    def __init__(self, split: TorusSplit, read: Sequence[int], involving: int | None) -> None:
        super().__init__()
        frequencies = split.frequencies(read, involving=involving)
        self._split = split
        self.harmonics = Harmonics(split.action, frequencies) if frequencies else None
        self.actions: list[LinearAction] = [
            split.action.linear_part.trivial_fields(1) if self.harmonics is None else self.harmonics.action_out
        ]

    def forward(self, parts: Sequence[Tensor]) -> list[Tensor]:
        """The features, from all parts of the event."""
        if self.harmonics is None:
            return [torch.ones_like(parts[0][..., :1])]
        return [self.harmonics(self._split.merge(parts))]


class PartFrame:
    """The coordinates in which a layer transforms a part: the part itself.

    Attributes:
        action: How the group acts on the coordinates.
        mask: None, or a tensor that is 1 at the entries that are transformed, and 0 elsewhere.
    """

    mask: Tensor | None = None
    default_transformer: TransformerFactory = staticmethod(default_transformer)

    def __init__(self, split: Split, index: int) -> None:
        self.action: Action = split.parts[index]
        self._index = index

    def require(self, transformer: Transformer) -> Transformer:
        """The transformer itself; ValueError if it is none of these coordinates."""
        return transformer

    def into(self, parts: Sequence[Tensor]) -> Tensor:
        """The coordinates, from all parts of the event."""
        return parts[self._index]

    def out(self, parts: Sequence[Tensor], before: Tensor, after: Tensor) -> Tensor:
        """The part whose coordinates are ``after``, where those of the part in ``parts`` are ``before``."""
        return after


class _AngleFrame(nn.Module):
    r"""Coordinates :math:`u = m x_A - n x_B - 2 \pi o` of some angles (:meth:`TorusSplit.frame`).

    A map of u becomes the map :math:`x_A \mapsto x_A + (S(u) - u) / m` with the same log-det, which repeats m times
    around the circle.
    """

    mask: Tensor | None
    default_transformer: TransformerFactory = staticmethod(ElementwiseCircularSpline)

    def __init__(self, split: TorusSplit, index: int, read: Sequence[int]) -> None:
        super().__init__()
        self.action: Action = split.action_in_frame(index, read)
        frame = split.frame(index, read)
        others, rows = split.angles_of(read), []
        for angle, m, row in zip(split.indices[index], frame.repeats, frame.combinations, strict=True):
            entries = {angle: m, **{other: -n for other, n in zip(others, row, strict=True)}}
            rows.append([entries.get(place, 0) for place in range(split.action.numel)])
        self._index, self._split = index, split
        # saved with the weights, which mean something only in these coordinates
        self.rows = FixedBasis(torch.tensor(rows, dtype=torch.float64))
        self.origin = FixedBasis(2 * math.pi * torch.tensor(list(map(float, frame.origin)), dtype=torch.float64))
        self.repeats = FixedBasis(torch.tensor(frame.repeats, dtype=torch.float64))
        mask = None if all(frame.repeats) else torch.tensor([float(m > 0) for m in frame.repeats])
        self.register_buffer("mask", mask, persistent=False)

    def require(self, transformer: Transformer) -> Transformer:
        """The transformer itself; ValueError unless it maps angles."""
        if not transformer.periodic:
            raise ValueError(
                "expected a transformer of angles such as ElementwiseCircularSpline, got "
                f"{type(transformer).__name__}, which does not commute with full circles"
            )
        return transformer

    def into(self, parts: Sequence[Tensor]) -> Tensor:
        """The coordinates u, from all parts of the event."""
        x = self._split.merge(parts)
        return x @ self.rows(x).T - self.origin(x)

    def out(self, parts: Sequence[Tensor], before: Tensor, after: Tensor) -> Tensor:
        """The part whose coordinates are ``after``, where those of the part in ``parts`` are ``before``."""
        repeats = self.repeats(before).clamp(min=1.0)
        return wrap_angle(parts[self._index] + (after - before) / repeats)

    def extra_repr(self) -> str:
        return f"part {self._index} of {self._split}"


def reading_of(split: Split, parts: Sequence[int], *, involving: int | None = None) -> PartReading | _AngleReading:
    """What a network reads of some parts.

    Args:
        split: How the event falls into parts.
        parts: The indices of the parts that are read.
        involving: Only what depends on this part, where the others are read as well.
    """
    if isinstance(split, TorusSplit):
        return _AngleReading(split, parts, involving)
    return PartReading(split, parts if involving is None else [involving])


def frame_of(split: Split, index: int, read: Sequence[int]) -> PartFrame | _AngleFrame:
    """The coordinates in which a layer that reads some parts transforms another one.

    Args:
        split: How the event falls into parts.
        index: The index of the part that is transformed.
        read: The indices of the parts that are read.
    """
    return _AngleFrame(split, index, read) if isinstance(split, TorusSplit) else PartFrame(split, index)


def can_be_transformed(split: Split, index: int) -> bool:
    """Whether a part has coordinates that a layer can transform which reads all other parts.

    Args:
        split: How the event falls into parts.
        index: The index of the part.
    """
    if not isinstance(split, TorusSplit):
        return True
    return any(split.frame(index, [other for other in range(len(split.parts)) if other != index]).repeats)
