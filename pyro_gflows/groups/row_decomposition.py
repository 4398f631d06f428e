"""The isotypic components of rows that are permuted, in closed form and at a cost linear in the number of rows."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.decomposition import decompose, intertwiner, side_by_side
from pyro_gflows.groups.isotypes import Isotype, Summands
from pyro_gflows.groups.representations import Representation, TrivialRepresentation
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.groups.row_structure import RowStructure
from pyro_gflows.groups.structured_field import InnerField
from pyro_gflows.numerics.constants import as_constants, made_once
from pyro_gflows.numerics.contrasts import contrasts, from_contrasts

__all__ = ["RowDecomposition", "decompose_rows"]

_LARGEST_DENSE = 2048  # coordinates of an event


@dataclass(frozen=True, eq=False)
class _Piece:
    """The copies of one irrep in one field: an irrep of the permutations times an irrep of the feature group H.

    Attributes:
        outer: The name of the irrep of the permutations (and sign changes).
        along: How the rows of the block are read: their mean, their contrasts, or each row.
        rows: The first row of the block and the one after the last.
        inner: The component of H.
        columns: The bases of the copies of its irrep in the features, shape ``(m, d, width)``.
    """

    outer: str
    along: str
    rows: tuple[int, int]
    inner: Isotype
    columns: Tensor

    @property
    def outer_dim(self) -> int:
        count = self.rows[1] - self.rows[0]
        return {"mean": 1, "contrasts": count - 1, "rows": count}[self.along]

    @property
    def dim(self) -> int:
        return self.outer_dim * self.inner.dim

    @made_once
    def _kept(self) -> dict[tuple[torch.device, torch.dtype], Tensor]:
        return {}

    def _rows_of(self, like: Tensor) -> Tensor:
        """The bases as the rows of one matrix, sent to a device once."""
        key = (like.device, like.dtype)
        if key not in self._kept:
            with as_constants():
                self._kept[key] = self.columns.to(like.device, like.dtype).flatten(0, 1)
        return self._kept[key]

    def analyze(self, table: Tensor) -> Tensor:
        """The coordinates, copy by copy, from rows of shape ``batch + (rows, width)``."""
        values = table[..., slice(*self.rows), :] @ self._rows_of(table).T
        if self.along == "mean":
            values = values.sum(-2, keepdim=True) / math.sqrt(values.shape[-2])
        elif self.along == "contrasts":
            values = contrasts(values, -2)
        return values.unflatten(-1, self.columns.shape[:2]).movedim(-2, -3).flatten(-3)

    def synthesize(self, coordinates: Tensor) -> Tensor:
        """The rows of the block with these coordinates and 0 in every other piece."""
        m, d, _ = self.columns.shape
        values = coordinates.unflatten(-1, (m, self.outer_dim, d)).movedim(-3, -2).flatten(-2)
        count = self.rows[1] - self.rows[0]
        if self.along == "mean":
            values = values.expand(*values.shape[:-2], count, -1) / math.sqrt(count)
        elif self.along == "contrasts":
            values = from_contrasts(values, -2)
        return values @ self._rows_of(coordinates)

    def dense(self, total: int, field: Representation) -> Tensor:
        """The orthonormal rows of each copy in the field of ``total`` coordinates, shape ``(m, dim, total)``."""
        unit = torch.eye(len(self.columns) * self.dim, dtype=torch.float64)
        width = self.columns.shape[-1]
        table = torch.zeros(len(unit), _row_count(field), width, dtype=torch.float64)
        table[:, slice(*self.rows)] = self.synthesize(unit)
        flat = field.flatten(table) if isinstance(field, RowField) else table.flatten(-2)
        return flat.reshape(len(self.columns), self.dim, total)


def _row_count(field: Representation) -> int:
    return field.rows if isinstance(field, RowField) else 1


class RowDecomposition(Decomposition):
    """The isotypic components of fields of rows; their coordinates cost a time linear in the number of rows.

    Args:
        isotypes: The components.
        pieces: For each component, the piece of each of its summands.
        fields: The fields of an event.
    """

    in_closed_form = True

    def __init__(
        self, isotypes: Sequence[Isotype], pieces: Sequence[Sequence[_Piece]], fields: Sequence[Representation]
    ) -> None:
        super().__init__(isotypes)
        self._pieces, self._fields = pieces, fields

    def _field(self, kind: int) -> Representation:
        index, group = self._members[kind][0]
        return self._fields[self[index].summands[group].order[0]]

    def _analyze(self, kind: int, local: Tensor) -> Tensor:
        field = self._field(kind)
        table = field.unflatten(local) if isinstance(field, RowField) else local[..., None, :]
        return torch.cat([self._pieces[index][group].analyze(table) for index, group in self._members[kind]], -1)

    def _synthesize(self, kind: int, local: Tensor) -> Tensor:
        field, pieces = self._field(kind), [self._pieces[index][group] for index, group in self._members[kind]]
        sizes = [len(piece.columns) * piece.dim for piece in pieces]
        blocks: dict[tuple[int, int], Tensor] = {}
        for piece, part in zip(pieces, local.split(sizes, -1), strict=True):
            rows = piece.synthesize(part)
            blocks[piece.rows] = blocks[piece.rows] + rows if piece.rows in blocks else rows
        table = torch.cat([rows for _, rows in sorted(blocks.items(), key=lambda item: item[0])], -2)
        return field.flatten(table) if isinstance(field, RowField) else table.flatten(-2)


@as_constants()
def decompose_rows(structure: RowStructure, fields: Sequence[Representation]) -> RowDecomposition:
    r"""The isotypic components of fields side by side.

    Even features: the mean over the rows of a block carries the irreps of the feature group H, and the differences of
    the rows carry an irrep of the permutations, of n - 1 dimensions, times those of H. Odd features: the rows carry a
    single irrep of the signed permutations, of n dimensions, times those of H. All irreps of permutations and of signed
    permutations are of real type, so each product is irreducible and of the type of the irrep of H.

    Args:
        structure: The group.
        fields: The fields: RowField, InnerField or TrivialRepresentation.

    Raises:
        ValueError: A field is a matrix, whose components are not known in closed form.

    Example:
        >>> from pyro_gflows.groups.finite import CyclicGroup
        >>> structure = RowStructure((5,))
        >>> field = RowField(structure, [TrivialRepresentation(CyclicGroup(1))] * 2)
        >>> [(part.multiplicity, part.dim) for part in decompose_rows(structure, [field])]
        [(2, 1), (2, 4)]
    """
    total = sum(field.size for field in fields)
    too_large = None
    if total > _LARGEST_DENSE:
        too_large = (
            f"the basis of an isotypic component is given for events of at most {_LARGEST_DENSE} coordinates, got "
            f"{total}; use layers and networks on rows, or isotype.project(x) and decomposition.coordinates(x), which "
            "need no basis"
        )
    found: list[tuple[str, Isotype, list[_Piece], list[Summands], Representation]] = []
    starts = itertools.accumulate((field.size for field in fields), initial=0)
    for order, (field, start) in enumerate(zip(fields, starts, strict=False)):
        places = torch.arange(start, start + field.size)[None]
        for piece in _pieces_of(structure, field):
            for outer, inner, pieces, summands, _ in found:
                change = intertwiner(piece.inner, inner) if outer == piece.outer else None
                if change is not None:
                    aligned = _Piece(outer, piece.along, piece.rows, inner, change @ piece.columns)
                    pieces.append(aligned)
                    summands.append(_summands(aligned, field, places, order))
                    break
            else:
                found.append((piece.outer, piece.inner, [piece], [_summands(piece, field, places, order)], field))
    outers = ["invariant", *dict.fromkeys(outer for outer, *_ in found)]
    found.sort(key=lambda entry: (not _is_trivial(entry[0], entry[1]), outers.index(entry[0])))
    isotypes = [
        Isotype(
            tuple(summands),
            _commutant(pieces[0], dense=too_large is None),
            (field, _first_rows(pieces[0], field, dense=too_large is None)),
            _is_trivial(outer, inner),
            torch.Size([total]),
            too_large,
            outer,
            inner,
        )
        for outer, inner, pieces, summands, field in found
    ]
    return RowDecomposition(isotypes, [pieces for _, _, pieces, _, _ in found], list(fields))


def _is_trivial(outer: str, inner: Isotype) -> bool:
    return outer == "invariant" and inner.is_trivial


def _summands(piece: _Piece, field: Representation, places: Tensor, order: int) -> Summands:
    make = functools.partial(piece.dense, field.size, field)
    return Summands(make, len(piece.columns), places, (order,), (order,))


def _first_rows(piece: _Piece, field: Representation, *, dense: bool) -> Tensor:
    if not dense:
        return torch.zeros(0, field.size, dtype=torch.float64)
    return piece.dense(field.size, field)[0]


def _commutant(piece: _Piece, *, dense: bool) -> Tensor:
    """The maps that commute with the irrep; a sparse tensor where the event is large."""
    if dense:
        unit = torch.eye(piece.outer_dim, dtype=torch.float64)
        return torch.stack([torch.kron(unit, one) for one in piece.inner.commutant])
    d = piece.inner.dim
    kinds, rows, columns = piece.inner.commutant.nonzero(as_tuple=True)
    shifts = d * torch.arange(piece.outer_dim)[:, None]
    index = torch.stack(
        [kinds.expand(len(shifts), -1).flatten(), (rows + shifts).flatten(), (columns + shifts).flatten()]
    )
    values = piece.inner.commutant[kinds, rows, columns].repeat(piece.outer_dim)
    return torch.sparse_coo_tensor(
        index, values, (len(piece.inner.commutant), piece.dim, piece.dim), check_invariants=True
    )


def _pieces_of(structure: RowStructure, field: Representation) -> Iterator[_Piece]:
    if isinstance(field, RowField):
        yield from _pieces_of_rows(field)
        return
    if isinstance(field, InnerField):
        inner: Representation = field.feature
    elif isinstance(field, TrivialRepresentation):
        inner = TrivialRepresentation(structure.inner)
    else:
        raise ValueError(
            f"the isotypic components of {field} are not known in closed form; layers that need them act on the other "
            "fields, and Canonicalized carries this one along"
        )
    for isotype in decompose(inner):
        yield _Piece("invariant", "mean", (0, 1), isotype, isotype.basis)


def _pieces_of_rows(field: RowField) -> Iterator[_Piece]:
    ends = list(itertools.accumulate(field.block_sizes, initial=0))
    for parity in (False, True):
        chosen = [feature for feature, odd in zip(field.features, field.odd, strict=True) if odd == parity]
        if not chosen:
            continue
        known = {feature: decompose(feature) for feature in dict.fromkeys(chosen)}
        inner = side_by_side([known[feature] for feature in chosen], [feature.size for feature in chosen])
        columns = torch.nonzero(field.odd_columns() == parity).flatten()
        for block, rows in zip(field.blocks, itertools.pairwise(ends), strict=True):
            for along, outer in _readings(field, block, rows, parity):
                for isotype in inner:
                    embedded = torch.zeros(*isotype.basis.shape[:2], field.width, dtype=torch.float64)
                    embedded[..., columns] = isotype.basis
                    yield _Piece(outer, along, rows, isotype, embedded)


def _readings(field: RowField, block: int, rows: tuple[int, int], odd: bool) -> Iterator[tuple[str, str]]:
    if odd:
        yield "rows", f"signed rows of block {block}"
        return
    if not field.mean_free:
        yield "mean", "invariant"
    if rows[1] - rows[0] > 1:
        yield "contrasts", f"differences in block {block}"
