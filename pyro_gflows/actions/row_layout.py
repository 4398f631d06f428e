"""RowTables and RowsLayout: the events of a row action as tables of features, for networks and layers on rows."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.groups.row_structure import RowStructure
from pyro_gflows.groups.structured_field import InnerField
from pyro_gflows.numerics.constants import kept_in, made_once

__all__ = ["RowTables", "RowsLayout"]


@dataclass(frozen=True)
class RowTables:
    """The features of events, block by block.

    Attributes:
        even: For each block, the features that no sign changes, shape ``batch_shape + (rows, count)``. Mean-free
            features are there for all n rows, with sum 0.
        odd: For each block, the features that change their sign with their row.
        rest: The coordinates that no permutation changes, shape ``batch_shape + (count,)``.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> RowsAction(3, 2).unpack(torch.arange(6.0)).even[0].tolist()
        [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
    """

    even: tuple[Tensor, ...]
    odd: tuple[Tensor, ...]
    rest: Tensor


class RowsLayout:
    """Which features the rows of each block have, and how the feature group H acts on them.

    Args:
        structure: The group.
        fields: The fields of an event, of which matrices are left out.

    Attributes:
        sizes: The number of rows of each block.
        even: For each block, how H acts on the even features of a row; None where there are none.
        odd: For each block, how H acts on the odd features of a row; None where there are none.
        rest: How H acts on the coordinates that no permutation changes; None where there are none.
        mean_free: For each block, which of its even feature coordinates sum to 0 over the rows, shape ``(count,)``.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> layout = RowsAction(3, 2).layout
        >>> layout.sizes, layout.even, layout.odd
        ((3,), (VectorAction(C1 on R^2: 2 x trivial),), (None,))
    """

    def __init__(self, structure: RowStructure, fields: Sequence[Representation]) -> None:
        self.sizes = structure.sizes
        self._fields = tuple(fields)
        blocks = range(len(self.sizes))
        features: dict[bool, list[list[Representation]]] = {odd: [[] for _ in blocks] for odd in (False, True)}
        mean_free: list[list[bool]] = [[] for _ in blocks]
        rest: list[Representation] = []
        for field in self._fields:
            if isinstance(field, InnerField):
                rest.append(field.feature)
            elif isinstance(field, RowField):
                for block in field.blocks:
                    for feature, odd in zip(field.features, field.odd, strict=True):
                        features[odd][block].append(feature)
                        if not odd:
                            mean_free[block] += [field.mean_free] * feature.size
        self.even = tuple(_action(found) for found in features[False])
        self.odd = tuple(_action(found) for found in features[True])
        self.rest = _action(rest)
        self.mean_free = tuple(torch.tensor(found, dtype=torch.bool) for found in mean_free)

    def unpack(self, x: Tensor) -> RowTables:
        """The features of events.

        Args:
            x: Events, shape ``batch_shape + (numel,)``.
        """
        batch, blocks = x.shape[:-1], range(len(self.sizes))
        even: list[list[Tensor]] = [[] for _ in blocks]
        odd: list[list[Tensor]] = [[] for _ in blocks]
        rest = []
        for field, part in zip(self._fields, _parts(x, [field.size for field in self._fields], -1), strict=True):
            if isinstance(field, InnerField):
                rest.append(part)
            elif isinstance(field, RowField):
                table = field.unflatten(part)
                for block, rows in zip(field.blocks, _parts(table, field.block_sizes, -2), strict=True):
                    if not any(field.odd):
                        even[block].append(rows)
                    else:
                        columns = self._columns(field, x.device)
                        even[block].append(rows[..., columns[0]])
                        odd[block].append(rows[..., columns[1]])
        empty = [x.new_zeros(*batch, size, 0) for size in self.sizes]
        return RowTables(
            tuple(_side_by_side(found, none) for found, none in zip(even, empty, strict=True)),
            tuple(_side_by_side(found, none) for found, none in zip(odd, empty, strict=True)),
            _side_by_side(rest, x.new_zeros(*batch, 0)),
        )

    def pack(self, rows: RowTables) -> Tensor:
        """The events with these features, which inverts :meth:`unpack`; means of mean-free features are dropped.

        Args:
            rows: The features.
        """
        even = [_Reader(values) for values in rows.even]
        odd = [_Reader(values) for values in rows.odd]
        rest = _Reader(rows.rest)
        parts = []
        for field in self._fields:
            if isinstance(field, InnerField):
                parts.append(rest.take(field.size))
            elif isinstance(field, RowField):
                changing = sum(field._per_column())
                tables = [
                    torch.cat([even[block].take(field.width - changing), odd[block].take(changing)], -1)
                    for block in field.blocks
                ]
                table = tables[0] if len(tables) == 1 else torch.cat(tables, -2)
                if changing:
                    table = table[..., self._columns(field, table.device)[2]]
                parts.append(field.flatten(table))
            else:
                raise ValueError(
                    f"expected an event of rows, got the field {field}, which networks on rows do not make"
                )
        return torch.cat(parts, -1)

    @made_once
    def _tables(self) -> dict[tuple[RowField, torch.device], tuple[Tensor, Tensor, Tensor]]:
        return {}

    def _columns(self, field: RowField, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """The even columns, the odd columns, and the order that puts them back, on a device."""

        def make() -> tuple[Tensor, Tensor, Tensor]:
            changes = field.odd_columns()
            even, odd = torch.nonzero(~changes).flatten(), torch.nonzero(changes).flatten()
            return even.to(device), odd.to(device), torch.cat([even, odd]).argsort().to(device)

        return kept_in(self._tables, (field, device), make)


def _action(features: Sequence[Representation]) -> VectorAction | None:
    return VectorAction(list(features)) if features else None


def _side_by_side(parts: Sequence[Tensor], none: Tensor) -> Tensor:
    return none if not parts else parts[0] if len(parts) == 1 else torch.cat(list(parts), -1)


class _Reader:
    """Takes the last dimension of a tensor piece by piece."""

    def __init__(self, values: Tensor) -> None:
        self.values, self.start = values, 0

    def take(self, count: int) -> Tensor:
        start, self.start = self.start, self.start + count
        return self.values[..., start : self.start]


def _parts(x: Tensor, sizes: Sequence[int], dim: int) -> list[Tensor]:
    """The parts of a tensor along a dimension; unlike those of ``split``, a user may change them in place."""
    ends = itertools.accumulate(sizes)
    return [x.narrow(dim, end - size, size) for end, size in zip(ends, sizes, strict=True)]
