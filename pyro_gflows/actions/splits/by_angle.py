"""TorusSplit: parts that are lists of angles."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from torch import Tensor

from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.actions.splits.angle_frames import (
    AngleFrame,
    frame_of_isometries,
    frame_of_translations,
    shifts_in_frame,
)
from pyro_gflows.actions.splits.by_index import IndexSplit
from pyro_gflows.actions.torus import TorusAction
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.groups.isometry_table import IsometryTable
from pyro_gflows.groups.torus_isometries import TorusIsometry
from pyro_gflows.numerics.integer_lattices import Row, hermite_basis, in_lattice
from pyro_gflows.serialization.registry import registered

__all__ = ["TorusSplit"]


@registered
class TorusSplit(IndexSplit):
    r"""A split of vectors of angles into lists of angles.

    A group element acts on angles by :math:`x \mapsto M x + a`. The matrix M of every group element maps the angles of
    a part to themselves up to signs, so a part is a union of orbits: the smallest such sets. A coupling layer then
    changes one part with parameters that depend on the others. The split also says what its network reads: the cosines
    and sines of integer combinations k . x of the other angles, with :math:`|k_1| + \dots + |k_d|` up to ``order``.

    One part that holds all angles is possible too, if it is asked for: the layer then transforms every angle by itself,
    and reads nothing.

    Args:
        action: How the group acts on angles.
        parts: Lists of angles, each a union of orbits. By default there are two parts of about equal size;
            each angle is one where infinitely many translations allow no map of the second one alone.
        order: The largest sum of the absolute values of the entries of k.

    Raises:
        TypeError: The action is not a TorusAction.
        ValueError: There is only one orbit, a part is empty or holds only a piece of an orbit, the lists do not hold
            every angle once, or ``order`` is not positive.

    Example:
        >>> import torch
        >>> split = TorusSplit(TorusAction.translations([[torch.pi, torch.pi]]))
        >>> split
        TorusSplit([0] | [1] of TorusAction(2 translations on T^2))
        >>> split.frame(0, [1]).combinations  # x1 - x2 is not shifted
        ((1,),)
    """

    _kind, _article, _word = TorusAction, "a", "angle"
    _instead = (
        "use g_residual (with its PeriodicNetwork) or GGradient (the gradient map of a trigonometric potential), which "
        "split nothing, or transform all angles alike by split=TorusSplit(action, [range(d)]), transformed=0"
    )
    _fewest: ClassVar[int] = 1

    action: TorusAction

    def __init__(self, action: TorusAction, parts: Sequence[Sequence[int]] | None = None, *, order: int = 2) -> None:
        super().__init__(action, parts)
        if parts is None and not self._has_coordinates(
            len(self.parts) - 1
        ):  # an autoregressive layer needs the last one
            super().__init__(action, [[index] for index in range(action.numel)])
        if order < 1:
            raise ValueError(f"expected order, the largest |k_1| + ... + |k_d|, to be at least 1, got {order}")
        self.order = order

    @staticmethod
    def _linear(action: Any) -> LinearAction:
        linear: LinearAction = action.linear_part
        return linear

    def _has_coordinates(self, part: int) -> bool:
        others = [other for other in range(len(self.parts)) if other != part]
        return any(self.frame(part, others).repeats)

    def angles_of(self, parts: Sequence[int]) -> list[int]:
        """The indices of the angles of some parts.

        Args:
            parts: The indices of the parts.
        """
        return [index for part in parts for index in self.indices[part]]

    def frame(self, part: int, read: Sequence[int]) -> AngleFrame:
        """Coordinates of one part in which the group acts without translations, or with as few as possible.

        Args:
            part: The index of the part.
            read: The indices of the parts whose angles may be subtracted.
        """
        own, others = self.angles_of([part]), self.angles_of(read)
        action = self.action
        if not action.is_finite or bool((action.matrices == action.matrices[:1]).all()):
            return frame_of_translations(action.fixed_combinations, own, others)
        generators = self._isometries(action.generators())
        return frame_of_isometries(generators, own, others, elements=self._isometries(action.elements()))

    def action_in_frame(self, part: int, read: Sequence[int]) -> LinearAction | TorusAction:
        """How the group acts on the coordinates :meth:`frame` of one part: linearly, where it shifts none of them.

        Args:
            part: The index of the part.
            read: The indices of the parts whose angles may be subtracted.
        """
        frame = self.frame(part, read)
        if frame.sectors == 1:
            return self.parts[part]
        own, others = self.angles_of([part]), self.angles_of(read)
        maps = self._isometries(self.action.elements())
        steps = [[int(frame.sectors * shift) for shift in shifts_in_frame(frame, each, own, others)] for each in maps]
        matrices = self.action.matrices[:, own][:, :, own].long()
        group = require_enumerable(self.action.group)
        return TorusAction(IsometryTable(group, matrices, steps=steps, denominator=frame.sectors))

    def _isometries(self, elements: Tensor) -> list[TorusIsometry]:
        maps = self.action.maps
        assert isinstance(maps, IsometryTable)
        return [maps.isometry(element) for element in elements.tolist()]

    def frequencies(self, read: Sequence[int], *, involving: int | None = None) -> list[tuple[int, ...]]:
        """The integer combinations k . x of the angles of some parts that a network reads, one of k and -k.

        Under infinitely many translations these are combinations that all translations leave as they are.

        Args:
            read: The indices of the parts.
            involving: The index of one of these parts, an angle of which has to be in every combination; None: of any.
        """
        angles = self.angles_of(read)
        needed = angles if involving is None else self.angles_of([involving])
        vectors = list(_small_vectors(angles, self.order, self.action.numel))
        if not self.action.is_finite:
            fixed = self.action.fixed_combinations
            # a basis as well, since all small vectors may be shifted
            vectors = [*_within(fixed, angles), *(vector for vector in vectors if in_lattice(fixed, vector))]
        return [vector for vector in dict.fromkeys(vectors) if any(vector[index] for index in needed)]

    def computed_arguments(self) -> dict[str, Any]:
        """The parts as lists, and all of them if they are the default ones."""
        return {"parts": [list(part) for part in self.indices]}

    def _key(self) -> Any:
        return self.indices, self.order

    def __repr__(self) -> str:
        return f"TorusSplit({' | '.join(str(list(part)) for part in self.indices)} of {self.action})"


def _within(lattice: Sequence[Row], angles: Sequence[int]) -> list[Row]:
    """A basis of the vectors of a lattice that are 0 everywhere except at some places."""
    size = len(lattice[0])
    order = [*(index for index in range(size) if index not in angles), *angles]
    rows = hermite_basis([[row[index] for index in order] for row in lattice])
    kept = [row for row in rows if not any(row[: size - len(angles)])]
    return [tuple(row[order.index(index)] for index in range(size)) for row in kept]


def _small_vectors(angles: Sequence[int], order: int, size: int) -> Iterator[Row]:
    """The integer vectors with up to ``order`` as the sum of absolute values at some places, one of k and -k."""
    for total in range(1, order + 1):
        for places in itertools.combinations_with_replacement(sorted(angles), total):
            used = sorted(set(places))
            for signs in itertools.product((1, -1), repeat=len(used) - 1):
                vector = [0] * size
                for index, sign in zip(used, (1, *signs), strict=True):
                    vector[index] = sign * places.count(index)
                yield tuple(vector)
