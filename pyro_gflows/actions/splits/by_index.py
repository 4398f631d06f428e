"""CoordinateSplit and ChannelSplit: parts that are lists of coordinates of vectors, or of channels of images."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.actions.splits.base import Split, balanced_halves
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.groups.orbits import invariant_sets, orbit_fields
from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.restriction import restricted_to_subspace
from pyro_gflows.numerics.constants import kept_in
from pyro_gflows.serialization.registry import registered

__all__ = ["ChannelSplit", "CoordinateSplit", "IndexSplit"]

_COUNTS = {1: "one list that holds", 2: "two lists that hold"}


class IndexSplit(Split):
    """A split into sets of indices along the dimension of the fields, each of which the group maps to itself."""

    _kind: ClassVar[type[Action]]
    _article: ClassVar[str]
    _word: ClassVar[str]
    _instead: ClassVar[str]

    _fewest: ClassVar[int] = 2

    def __init__(self, action: Action, parts: Sequence[Sequence[int]] | None = None) -> None:
        if not isinstance(action, self._kind):
            raise TypeError(f"expected {self._article} {self._kind.__name__} to split by {self._word}s, got {action}")
        linear = self._linear(action)
        orbits = invariant_sets(linear.fields)
        if len(orbits) == 1 and (parts is None or self._fewest > 1):
            raise ValueError(
                f"the {self._word}s of {action} are one orbit, {_listed(orbits[0])}, so no split by {self._word}s is "
                "invariant; "
                f"{self._instead}"
            )
        if parts is None:
            halves = balanced_halves([len(orbit) for orbit in orbits])
            parts = [[index for i in half for index in orbits[i]] for half in halves]
        self.action = action
        self._check(parts, orbits)
        chosen = [_restrict_fields(linear, set(part)) for part in parts]
        self.indices = tuple(tuple(order) for order, _ in chosen)
        self.parts = tuple(linear.with_fields(fields) for _, fields in chosen)
        self._sizes = [len(part) for part in self.indices]
        listed = itertools.chain.from_iterable(self.indices)
        self._in_order = all(place == index for place, index in enumerate(listed))

    @staticmethod
    def _linear(action: Any) -> LinearAction:
        """The matrices by which the group acts on the indices."""
        linear: LinearAction = action
        return linear

    def _check(self, parts: Sequence[Sequence[int]], orbits: list[list[int]]) -> None:
        total = sum(len(orbit) for orbit in orbits)
        listed = sorted(index for part in parts for index in part)
        if listed != list(range(total)) or len(parts) < self._fewest:
            raise ValueError(
                f"expected at least {_COUNTS[self._fewest]} every {self._word} 0..{total - 1} once, got {_lists(parts)}"
            )
        for index, part in enumerate(parts):
            if not part:
                raise ValueError(
                    f"part {index} of the split is empty; every part needs a {self._word}, got {_lists(parts)}"
                )
            broken = [orbit for orbit in orbits if 0 < len(set(orbit) & set(part)) < len(orbit)]
            if broken:
                raise ValueError(
                    f"part {index}, {list(part)}, is not mapped to itself by {self.action.group}: it cuts the orbit "
                    f"{_listed(broken[0])}; the orbits of {self._word}s are {_lists(orbits)}"
                )

    def _index(self, name: str, device: torch.device) -> Tensor:
        def make() -> Tensor:
            order = [index for part in self.indices for index in part]
            if name == "merge":
                order = sorted(range(len(order)), key=order.__getitem__)
            return torch.tensor(order, device=device)

        return kept_in(self._tables, (name, device), make)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        return self.ordered(x).split_with_sizes(self._sizes, -self.action.event_dim)

    def ordered(self, x: Tensor) -> Tensor:
        self.action.check_event(x)
        return x if self._in_order else x.index_select(-self.action.event_dim, self._index("split", x.device))

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        self.check_parts(parts)
        return self.unordered(torch.cat(list(parts), -self.action.event_dim))

    def unordered(self, x: Tensor) -> Tensor:
        return x if self._in_order else x.index_select(-self.action.event_dim, self._index("merge", x.device))

    def _key(self) -> Any:
        return self.indices


def _lists(parts: Sequence[Sequence[int]]) -> str:
    return _listed([list(part) for part in parts])


def _listed(values: Sequence[object]) -> str:
    text = str(list(values))
    return text if len(text) <= 400 else text[:400] + " ..."


def _restrict_fields(action: LinearAction, part: set[int]) -> tuple[list[int], list[Representation]]:
    """The indices of a part in the order of its fields, and the fields: whole ones, or those of single orbits."""
    order: list[int] = []
    fields: list[Representation] = []
    starts = itertools.accumulate(action.field_sizes, initial=0)
    for field, start in zip(action.fields, starts, strict=False):
        own = [index for index in range(field.size) if start + index in part]
        if len(own) == field.size:
            fields.append(field)
        elif own and (known := field.restricted_to(own)) is not None:
            own, pieces = known
            fields += pieces
        elif own:
            rows = torch.eye(field.size, dtype=torch.float64)[own]
            piece = restricted_to_subspace(field, rows, f"{len(own)} entries of {field.name}")
            own, pieces = _typed(piece, own)
            fields += pieces
        order += [start + index for index in own]
    return order, fields


def _typed(piece: Representation, own: list[int]) -> tuple[list[int], list[Representation]]:
    """A permutation representation as trivial, regular and quotient fields; any other one as it is."""
    if not isinstance(piece.group, EnumerableGroup):
        return own, [piece]
    matrices = piece.matrices(piece.group.elements())
    if not bool(((matrices == 0.0) | (matrices == 1.0)).all()):
        return own, [piece]
    order, fields = orbit_fields(piece.group, matrices.argmax(-2))
    return [own[index] for index in order], fields


@registered
class CoordinateSplit(IndexSplit):
    r"""A split of vectors into lists of coordinates.

    Every group element maps the coordinates of a part to themselves, so a part is a union of orbits: the smallest such
    sets. If, for example, a group acts on two vectors of the plane side by side, the coordinates of each vector are an
    orbit.

    Args:
        action: How the group acts on vectors.
        parts: Lists of coordinates, each a union of orbits. By default there are two parts of about equal size.

    Raises:
        TypeError: The action is not a VectorAction.
        ValueError: There is only one orbit, a part is empty or holds only a piece of an orbit, or the lists do not hold
            every coordinate once.

    Example:
        >>> split = CoordinateSplit(VectorAction.plane("D4", copies=2))
        >>> split
        CoordinateSplit(VectorAction(D4 on R^2: defining) | VectorAction(D4 on R^2: defining))
        >>> [part.tolist() for part in split.split(torch.arange(4.0))]
        [[0.0, 1.0], [2.0, 3.0]]
    """

    _kind, _article, _word = VectorAction, "a", "coordinate"
    _instead = (
        "split it by irreps with IrrepSplit, or, if it is irreducible, use GResidual or GRadial, which split nothing"
    )


@registered
class ChannelSplit(IndexSplit):
    r"""A split of images into lists of channels.

    Every group element maps the channels of a part to themselves, so a part is a union of orbits: the smallest such
    sets of channels.

    Args:
        action: How the group acts on images.
        parts: Lists of channels, each a union of orbits. By default there are two parts of about equal size.

    Raises:
        TypeError: The action is not an ImageAction.
        ValueError: There is only one orbit, a part is empty or holds only a piece of an orbit, or the lists do not hold
            every channel once.

    Example:
        >>> ChannelSplit(ImageAction("C4", 3, size=4), [[0], [1, 2]])
        ChannelSplit(ImageAction(C4 on 1 x 4 x 4: trivial) | ImageAction(C4 on 2 x 4 x 4: 2 x trivial))
    """

    _kind, _article, _word = ImageAction, "an", "channel"
    _instead = (
        "split it by irreps (IrrepSplit: the mean | the details) or by a mask (checkerboard_split), or use GResidual"
    )
