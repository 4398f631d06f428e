"""RowsAction: permutations of the rows of a table, for sets, mixture components and hidden units of any number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.row_layout import RowsLayout, RowTables
from pyro_gflows.actions.row_order import lexicographic_order, row_signs
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.finite import CyclicGroup
from pyro_gflows.groups.matrix_field import MatrixField
from pyro_gflows.groups.representations import Representation, TrivialRepresentation
from pyro_gflows.groups.row_decomposition import decompose_rows
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.groups.row_structure import RowStructure
from pyro_gflows.groups.structured_field import InnerField, StructuredField
from pyro_gflows.numerics.constants import as_constants, made_once
from pyro_gflows.numerics.contrasts import contrasts
from pyro_gflows.serialization.registry import registered

__all__ = ["RowsAction"]


@registered
class RowsAction(VectorAction):
    r"""Permutations of n rows, each with the same features, for any n: nothing of the size of the group is built.

    It is the symmetry of a set of points, of the components of a mixture, of particles of one kind, and, with sign
    changes, of the hidden units of a network. An event is a vector that holds a table of n rows and F features, row by
    row; ``x.unflatten(-1, (n, F))`` shows the table. A group H may act on the features of every row alike, as rotations
    act on points of the plane; then the group is :math:`S_n \times H`.

    Several actions of one group lie side by side in one event by ``direct_sum``, as the weights, means and scales
    of a mixture do.

    Sets of different sizes lie in one batch of events of the most rows, by a mask that says which rows are there:
    ``flow(x, mask=mask)``, ``flow.condition(mask=mask)``; :func:`pad_rows` makes both from a list of sets.

    Args:
        rows: The number n of rows; or the numbers of rows of several blocks (species, kinds) that are permuted
            separately; or the fields of an event (:class:`~pyro_gflows.groups.RowField`), all of one structure.
        features: The number F of features of a row, or how H acts on them: a VectorAction such as
            ``VectorAction.plane("O(2)")``.
        signed: None where rows are only permuted. Otherwise the group also changes the signs of single rows: True if
            all features change their sign with their row (odd features), or the indices of those that do (where H
            acts, of the fields of ``features``); ``[]`` if none does.
        mean_free: Whether each feature sums to 0 over the rows. An event then holds (n - 1) F coordinates, those of
            :class:`~pyro_gflows.guides.IsometricLogRatio`; so the weights of a mixture are stored in log-ratios.
        block: The index of the block whose rows the event holds; by default the rows of all blocks.

    Raises:
        TypeError: ``rows`` or ``features`` is of another type.
        ValueError: A number is not positive, ``signed`` names a feature that does not exist, fields are of different
            groups, or mean-free features are odd or in several blocks.

    Example:
        >>> action = RowsAction(50, 2)
        >>> action, action.group.order == math.factorial(50)
        (RowsAction(S50 on R^100: rows of 2), True)
        >>> RowsAction(13, VectorAction.space("O(3)"))
        RowsAction(S13 x O(3) on R^39: rows of 3)
        >>> weights, means = RowsAction(20, mean_free=True), RowsAction(20, 2)
        >>> weights.direct_sum(means)
        RowsAction(S20 on R^59: mean-free rows + rows of 2)
    """

    structure: RowStructure

    def __init__(
        self,
        rows: int | Sequence[int] | Sequence[Representation],
        features: int | VectorAction = 1,
        *,
        signed: bool | Sequence[int] | None = None,
        mean_free: bool = False,
        block: int | None = None,
    ) -> None:
        fields = _given_fields(rows)
        if fields is None:
            fields = [_one_field(rows, features, signed, mean_free, block)]  # type: ignore[arg-type]
        structures = [field.structure for field in fields if isinstance(field, StructuredField)]
        if not structures or len(set(structures)) > 1:
            raise ValueError(f"expected fields of rows of one group, got {fields}")
        self.structure = structures[0]
        super().__init__([_structured(self.structure, field) for field in fields])

    @classmethod
    def of_matrix(
        cls, rows: int | Sequence[int], *, blocks: tuple[int, int] = (0, 0), odd: tuple[bool, bool] | None = None
    ) -> RowsAction:
        """The action on an n_a x n_b matrix whose rows are permuted as one block, and whose columns as another.

        These are the transition rates between n states, or the weights between two hidden layers.

        Args:
            rows: The number of rows of each block, as for the class.
            blocks: The block that permutes the rows, and the block that permutes the columns.
            odd: None where rows are only permuted, else whether the matrix changes its sign with its rows, and with its
                columns.

        Example:
            >>> RowsAction.of_matrix((20, 10), blocks=(0, 1), odd=(True, True))
            RowsAction(signed S20 x signed S10 on R^200: signed 20 x 10 matrix)
        """
        structure = RowStructure(_sizes(rows), signed=odd is not None)
        return cls([MatrixField(structure, blocks, odd=(False, False) if odd is None else odd)])

    # -- acting on events ----------------------------------------------------------------------------------------------
    def act_each(self, elements: Tensor, x: Tensor) -> Tensor:
        self.check_event(x)
        batch = torch.broadcast_shapes(self.group.batch_shape(elements), x.shape[:-1])
        one_each = elements[(..., None, *[slice(None)] * len(self.group.element_shape))]
        images, start = [], 0
        for field, run in itertools.groupby(self.fields):
            count = len(list(run))
            part = x[..., start : start + count * field.size]
            if count == 1:
                image = field.act(elements, part)
            else:
                image = field.act(one_each, part.unflatten(-1, (count, field.size))).flatten(-2)
            images.append(image.expand(*batch, -1))
            start += count * field.size
        return torch.cat(images, -1)

    def canonical(self, x: Tensor) -> Tensor | None:
        self.check_event(x)
        layout = self.layout
        if self.structure.has_inner or not all(even or odd for even, odd in zip(layout.even, layout.odd, strict=True)):
            return super().canonical(x)
        with torch.no_grad():
            rows = self.unpack(x.detach().double())
            permutations, signs = [], []
            for even, odd in zip(rows.even, rows.odd, strict=True):
                sign = row_signs(odd) if odd.shape[-1] else torch.ones_like(even[..., 0], dtype=torch.int64)
                order = lexicographic_order(torch.cat([even, odd * sign[..., None]], -1))
                permutations.append(order.argsort(-1))
                signs.append(sign)
            return self.structure.elements_of(permutations, signs)

    # -- tables of features --------------------------------------------------------------------------------------------
    @made_once
    def layout(self) -> RowsLayout:
        """Which features the rows of each block have."""
        return RowsLayout(self.structure, self.fields)

    @property
    def has_matrix_fields(self) -> bool:
        """Whether the event holds matrices whose rows and columns are permuted, which networks on rows do not read."""
        return any(isinstance(field, MatrixField) for field in self.fields)

    def unpack(self, x: Tensor) -> RowTables:
        """The features of events, block by block, at a cost linear in the number of rows; matrices are left out.

        Args:
            x: Events, shape ``batch_shape + (numel,)``.

        Example:
            >>> RowsAction(3, mean_free=True).unpack(torch.zeros(2)).even[0].shape
            torch.Size([3, 1])
        """
        self.check_event(x)
        return self.layout.unpack(x)

    def pack(self, rows: RowTables) -> Tensor:
        """The events with these features, which inverts :meth:`unpack`; means of mean-free features are dropped.

        Args:
            rows: The features.

        Raises:
            ValueError: The event holds matrices.
        """
        return self.layout.pack(rows)

    # -- structure -----------------------------------------------------------------------------------------------------
    @made_once
    @as_constants()
    def decomposition(self) -> Decomposition:
        return decompose_rows(self.structure, self.fields)

    def field_decomposition(self) -> Decomposition:
        return self.decomposition

    @as_constants()
    def invariants(self) -> Tensor:
        starts = list(itertools.accumulate(self.field_sizes, initial=0))
        rows = []
        for field, start in zip(self.fields, starts, strict=False):
            if isinstance(field, MatrixField):
                found = _constants_of(field)
            else:
                parts = decompose_rows(self.structure, [field])
                trivial = [part.dense_basis().flatten(0, 1) for part in parts if part.is_trivial]
                found = torch.cat(trivial) if trivial else torch.zeros(0, field.size, dtype=torch.float64)
            embedded = torch.zeros(len(found), self.numel, dtype=torch.float64)
            embedded[:, start : start + field.size] = found
            rows.append(embedded)
        return torch.cat(rows)

    def with_fields(self, fields: Sequence[Representation]) -> VectorAction:  # type: ignore[override]
        structured = all(isinstance(field, StructuredField | TrivialRepresentation) for field in fields)
        if not structured:
            return VectorAction(list(fields))
        return RowsAction([_structured(self.structure, field) for field in fields])

    @staticmethod
    def _derived() -> tuple[str, ...]:
        return ("decomposition", "_tables", "layout", "_entries")

    def __repr__(self) -> str:
        return f"RowsAction({self.group} on R^{self.numel}: {self._fields_in_words()})"


def _sizes(rows: Any) -> tuple[int, ...]:
    if isinstance(rows, int) and not isinstance(rows, bool):
        return (rows,)
    if isinstance(rows, Sequence) and not isinstance(rows, str):
        return tuple(rows)
    raise TypeError(f"expected the number of rows, or of the rows of each block, got {rows!r}")


def _given_fields(rows: Any) -> list[Representation] | None:
    if isinstance(rows, Sequence) and rows and any(isinstance(row, Representation) for row in rows):
        return list(rows)
    return None


def _one_field(
    rows: int | Sequence[int],
    features: int | VectorAction,
    signed: bool | Sequence[int] | None,
    mean_free: bool,
    block: int | None,
) -> RowField:
    if isinstance(features, VectorAction) and not isinstance(features, RowsAction):
        listed = features.fields
    elif isinstance(features, int) and not isinstance(features, bool):
        if features < 1:
            raise ValueError(f"expected a positive number of features of a row, got {features}")
        listed = (TrivialRepresentation(CyclicGroup(1)),) * features
    else:
        raise TypeError(
            f"expected features as a number, or as an action on one row such as VectorAction.plane('O(2)'), got "
            f"{features!r}"
        )
    structure = RowStructure(_sizes(rows), signed=signed is not None and signed is not False, inner=listed[0].group)
    chosen = range(len(listed)) if signed is True else signed or []
    if any(isinstance(index, bool) or not isinstance(index, int) for index in chosen):
        raise TypeError(f"expected signed as None, True or the indices of odd features, got {signed!r}")
    if any(not 0 <= index < len(listed) for index in chosen):
        raise ValueError(f"expected signed to name features in 0..{len(listed) - 1}, got {list(chosen)}")
    if block is not None and not 0 <= block < len(structure.sizes):
        raise ValueError(f"expected a block in 0..{len(structure.sizes) - 1}, got {block}")
    odd = [index in chosen for index in range(len(listed))]
    return RowField(structure, listed, odd=odd, mean_free=mean_free, blocks=None if block is None else [block])


def _structured(structure: RowStructure, field: Representation) -> Representation:
    """The field itself; a trivial one as a feature that nothing changes."""
    if isinstance(field, TrivialRepresentation):
        if field.group != structure.group:
            raise ValueError(f"expected fields of {structure.group}, got {field}")
        return InnerField(structure, TrivialRepresentation(structure.inner))
    return field


def _constants_of(field: MatrixField) -> Tensor:
    """The orthonormal matrices, flattened, that are constant on each invariant set of entries."""
    if field.mean_free:
        return _mean_free_constants(field)
    sets = field.invariant_sets()
    if any(field.odd):  # every sign change keeps only the diagonal of a matrix with the same signs on both sides
        same = field.odd == (True, True) and field.blocks[0] == field.blocks[1]
        sets = sets[:1] if same else []
    rows = torch.zeros(len(sets), field.size, dtype=torch.float64)
    for row, one in zip(rows, sets, strict=True):
        row[one] = 1.0 / math.sqrt(len(one))
    return rows


def _mean_free_constants(field: MatrixField) -> Tensor:
    """The invariant matrix whose rows sum to 0: the deviation of the unit matrix from its mean, if there is one."""
    if field.blocks[0] != field.blocks[1] or any(field.odd):
        return torch.zeros(0, field.size, dtype=torch.float64)
    found = contrasts(torch.eye(field.shape[0], dtype=torch.float64)).flatten()
    return (found / found.norm())[None]
