"""How a group that permutes whole rows of constrained values acts on the free coordinates of the rows."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_gflows.actions import VectorAction
from pyro_gflows.groups import (
    EnumerableGroup,
    MatrixRepresentation,
    Representation,
    RowsRepresentation,
    TrivialRepresentation,
)
from pyro_gflows.groups.symmetric import SymmetricGroup

__all__ = ["blocks_of_rows", "whole_rows"]

_TOLERANCE = 1e-9


def whole_rows(action: VectorAction, *, row: int, free: int) -> VectorAction | None:
    r"""The action on rows of free coordinates that matches a permutation of whole rows of values.

    A support such as the simplex or a Cholesky factor maps each row by itself, from ``free`` unconstrained coordinates
    to ``row`` constrained values. This map commutes with every permutation P(g) of the rows, which is
    :math:`P(g) \otimes I_{row}` on the values and :math:`P(g) \otimes I_{free}` on the free coordinates.

    Args:
        action: How the group acts on the values, flattened row by row.
        row: The number of values in a row; a divisor of the size of the action.
        free: The number of free coordinates in a row.

    Returns:
        The action on the free coordinates, or None if ``action`` does not permute whole rows.

    Example:
        >>> whole_rows(VectorAction.rows("S3", features=4), row=4, free=3)
        VectorAction(S3 on R^9: rows of 3)
        >>> whole_rows(VectorAction.rows("S4"), row=4, free=3) is None
        True
    """
    fields: list[Representation] = []
    for block in blocks_of_rows(action, row):
        found = _fewer(block, row, free)
        if found is None:
            return None
        fields += found
    return VectorAction(fields)


def blocks_of_rows(action: VectorAction, row: int) -> Iterator[VectorAction]:
    """Cuts an action into actions on neighboring fields, each as small as possible and made of whole rows.

    Args:
        action: How the group acts on the values, flattened row by row.
        row: The number of values in a row.
    """
    waiting: list[Representation] = []
    for field in action.fields:
        waiting.append(field)
        if sum(part.size for part in waiting) % row == 0:
            yield VectorAction(waiting)
            waiting = []


def _fewer(block: VectorAction, row: int, free: int) -> list[Representation] | None:
    group, first = block.group, block.fields[0]
    if isinstance(first, RowsRepresentation) and isinstance(group, SymmetricGroup):
        features = first.size // group.n
        if features % row == 0:
            return [RowsRepresentation(group, features // row * free)]
    elements = group.elements() if isinstance(group, EnumerableGroup) else group.generators()
    permutations = _permutations(block.matrix(elements), row)
    if permutations is None:
        return None
    count = permutations.shape[-1]
    if torch.equal(permutations, torch.eye(count, dtype=torch.float64).expand_as(permutations)):
        return [TrivialRepresentation(group)] * (count * free)
    if not isinstance(group, EnumerableGroup):
        return None
    table = torch.kron(permutations, torch.eye(free, dtype=torch.float64))
    return [MatrixRepresentation(group, table, name=f"{first.name}, {free} free of {row}")]


def _permutations(matrices: Tensor, row: int) -> Tensor | None:
    r"""The permutation matrices P, if all matrices have the form :math:`P \otimes I`; otherwise None."""
    count = matrices.shape[-1] // row
    found = matrices[:, ::row, ::row].round()
    expected = torch.kron(found.contiguous(), torch.eye(row, dtype=torch.float64))
    is_permutation = bool((found >= 0).all()) and bool((found.sum(-1) == 1).all()) and count > 0
    return found + 0.0 if is_permutation and bool((matrices - expected).abs().max() < _TOLERANCE) else None
