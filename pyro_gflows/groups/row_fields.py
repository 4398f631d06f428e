"""RowField: rows of features that are permuted, the field of which most events of row actions consist."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.row_structure import RowStructure
from pyro_gflows.groups.structured_field import StructuredField
from pyro_gflows.numerics.contrasts import contrasts, from_contrasts
from pyro_gflows.numerics.tables import take_rows
from pyro_gflows.serialization.registry import registered

__all__ = ["RowField"]


@registered
class RowField(StructuredField):
    r"""Rows of features: the rows are permuted, and every row is an event of the feature group H.

    A vector holds the rows one after the other. The row j of x goes to the place p(j): :math:`(g\,x)_{p(j)} = s_j\,h\,
    x_j`, where the sign :math:`s_j` counts for odd features only, and h is the element of H.

    Args:
        structure: The group.
        features: How H acts on each block of features of a row.
        odd: For each of these, whether it changes its sign with its row; by default none does.
        mean_free: Whether each feature sums to 0 over the rows. A vector then holds n - 1 coordinates of each feature
            in the orthonormal basis of :class:`~pyro_gflows.guides.IsometricLogRatio`.
        blocks: The blocks whose rows the vector holds; by default all blocks.

    Raises:
        ValueError: The features are not of H, a feature is odd but rows have no signs, or a mean-free field has odd
            features or several blocks.

    Example:
        >>> from pyro_gflows.groups import CyclicGroup, TrivialRepresentation
        >>> field = RowField(RowStructure((3,)), [TrivialRepresentation(CyclicGroup(1))] * 2)
        >>> field, field.act(torch.tensor(3), torch.arange(6.0)).tolist()
        (rows of 2 of S3, [4.0, 5.0, 0.0, 1.0, 2.0, 3.0])
    """

    def __init__(
        self,
        structure: RowStructure,
        features: Sequence[Representation],
        *,
        odd: Sequence[bool] | None = None,
        mean_free: bool = False,
        blocks: Sequence[int] | None = None,
    ) -> None:
        self.structure, self.group = structure, structure.group
        self.features = tuple(features)
        self.odd = (False,) * len(self.features) if odd is None else tuple(odd)
        self.mean_free = mean_free
        self.blocks = tuple(range(len(structure.sizes))) if blocks is None else tuple(blocks)
        self._check()
        self.rows = sum(structure.sizes[block] for block in self.blocks)
        self.width = sum(feature.size for feature in self.features)
        self.size = (self.rows - int(mean_free)) * self.width
        kinds = (["mean-free"] if mean_free else []) + (["signed"] if any(self.odd) else [])
        where = "" if len(self.blocks) == len(structure.sizes) else f" in block {', '.join(map(str, self.blocks))}"
        of = "" if self.width == 1 else f" of {self.width}"
        self.name = " ".join([*kinds, "rows"]) + of + where

    def _check(self) -> None:
        structure = self.structure
        if not self.features or any(feature.group != structure.inner for feature in self.features):
            raise ValueError(f"expected features of {structure.inner}, got {list(self.features)}")
        if len(self.odd) != len(self.features):
            raise ValueError(f"expected one entry of odd for each of {len(self.features)} features, got {self.odd}")
        if any(self.odd) and not structure.signed:
            raise ValueError(f"odd features change their sign with their row, but {self.group} only permutes rows")
        if not self.blocks or any(not 0 <= block < len(structure.sizes) for block in self.blocks):
            raise ValueError(f"expected blocks in 0..{len(structure.sizes) - 1}, got {self.blocks}")
        if not self.mean_free:
            return
        if any(self.odd):
            raise ValueError("the sum of an odd feature over the rows is not invariant, so it cannot be mean-free")
        if len(self.blocks) > 1:
            raise ValueError(f"expected a mean-free field in one block of rows, got blocks {self.blocks}")
        if structure.sizes[self.blocks[0]] < 2:
            raise ValueError("expected a mean-free field in a block of at least 2 rows: a single row would be 0")

    @property
    def block_sizes(self) -> list[int]:
        """The number of rows of each block of this field."""
        return [self.structure.sizes[block] for block in self.blocks]

    def unflatten(self, x: Tensor) -> Tensor:
        """The rows of vectors, shape ``batch_shape + (rows, width)``; the features of a mean-free field sum to 0.

        Args:
            x: Vectors, shape ``batch_shape + (size,)``.
        """
        table = x.unflatten(-1, (self.rows - int(self.mean_free), self.width))
        return from_contrasts(table, -2) if self.mean_free else table

    def flatten(self, rows: Tensor) -> Tensor:
        """The vectors with these rows; of a mean-free field, the mean over the rows is dropped.

        Args:
            rows: Rows, shape ``batch_shape + (rows, width)``.
        """
        return (contrasts(rows, -2) if self.mean_free else rows).flatten(-2)

    def act(self, elements: Tensor, x: Tensor) -> Tensor:
        elements = elements.to(x.device)
        rows = self._act_on_features(elements, self.unflatten(x))
        back = self.structure.permutations(elements, self.blocks).argsort(-1)
        return self.flatten(take_rows(rows, back))

    def _act_on_features(self, elements: Tensor, rows: Tensor) -> Tensor:
        if self.structure.has_inner:
            inner, parts, start = self.structure.inner_elements(elements), [], 0
            for feature, run in itertools.groupby(self.features):
                count = len(list(run))
                part = rows[..., start : start + count * feature.size].unflatten(-1, (count, feature.size))
                matrices = feature.matrices(inner.cpu()).to(rows)[..., None, :, :]
                parts.append((part @ matrices.mT).flatten(-2))
                start += count * feature.size
            rows = torch.cat(parts, -1)
        if any(self.odd):
            signs = self.structure.signs(elements, self.blocks).to(rows)[..., None]
            rows = torch.where(self.odd_columns().to(rows.device), rows * signs, rows)
        return rows

    def odd_columns(self) -> Tensor:
        """For each coordinate of a row, whether it changes its sign with the row; shape ``(width,)``."""
        return torch.tensor(self._per_column())

    def _per_column(self) -> list[bool]:
        return [odd for feature, odd in zip(self.features, self.odd, strict=True) for _ in range(feature.size)]

    # -- structure -----------------------------------------------------------------------------------------------------
    def entries(self) -> frozenset[float]:
        if self.mean_free:
            return frozenset({math.nan})  # of two rows as well: the signs of an odd coordinate are no RowField
        found = frozenset({0.0}).union(*[feature.entries() for feature in set(self.features)])
        return found | {-entry for entry in found} if any(self.odd) else found

    def absolute(self) -> RowField:
        return RowField(self.structure, [feature.absolute() for feature in self.features], blocks=self.blocks)

    def invariant_sets(self) -> list[list[int]]:
        columns = _sets_of(self.features)
        if self.mean_free:
            rows = self.rows - 1
            return [[row * self.width + column for row in range(rows) for column in one] for one in columns]
        ends = list(itertools.accumulate(self.block_sizes, initial=0))
        blocks = [range(*pair) for pair in itertools.pairwise(ends)]
        return [[row * self.width + column for row in rows for column in one] for rows in blocks for one in columns]

    def restricted_to(self, coordinates: Sequence[int]) -> tuple[list[int], list[Representation]] | None:
        if self.mean_free:
            columns = sorted({index % self.width for index in coordinates})
            order = [row * self.width + column for row in range(self.rows - 1) for column in columns]
            return order, [self._of_columns(columns, self.blocks)]
        ends = list(itertools.accumulate(self.block_sizes, initial=0))
        chosen: dict[tuple[int, ...], list[int]] = {}  # for each set of columns, the positions of the blocks
        wanted = set(coordinates)
        for position, start in enumerate(ends[:-1]):
            columns = [column for column in range(self.width) if start * self.width + column in wanted]
            if columns:
                chosen.setdefault(tuple(columns), []).append(position)
        order, fields = [], []
        for columns_of, positions in chosen.items():
            for position in positions:
                rows = range(ends[position], ends[position + 1])
                order += [row * self.width + column for row in rows for column in columns_of]
            fields.append(self._of_columns(columns_of, [self.blocks[position] for position in positions]))
        return order, fields

    def _of_columns(self, columns: Sequence[int], blocks: Sequence[int]) -> Representation:
        """The field with some of the columns, which are whole orbits of H."""
        features: list[Representation] = []
        odd: list[bool] = []
        start = 0
        for feature, is_odd in zip(self.features, self.odd, strict=True):
            own = [column - start for column in columns if start <= column < start + feature.size]
            if len(own) == feature.size:
                features.append(feature)
                odd.append(is_odd)
            elif own:
                raise ValueError(f"expected whole features of {self}, got the coordinates {own} of {feature}")
            start += feature.size
        return RowField(self.structure, features, odd=odd, mean_free=self.mean_free, blocks=blocks)

    def _key(self) -> Any:
        return (type(self).__name__, self.structure, self.features, self.odd, self.mean_free, self.blocks)


def _sets_of(features: Sequence[Representation]) -> list[list[int]]:
    """The columns of each feature; a feature is not cut, even where H maps parts of it to themselves."""
    starts = itertools.accumulate((feature.size for feature in features), initial=0)
    return [list(range(start, start + feature.size)) for feature, start in zip(features, starts, strict=False)]
