"""The irreducible blocks of an action's fields, one by one, in bases that are as simple as they can be."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.actions.base import LinearAction
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.groups.canonical_basis import canonical_rows, first_largest
from pyro_gflows.groups.decomposition import is_trivial
from pyro_gflows.groups.isotypes import Isotype
from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.restriction import restricted_to_subspace

__all__ = [
    "IrreducibleBlock",
    "along_fields",
    "block_of",
    "block_rows",
    "irreducible_blocks",
    "monomial_basis",
    "reflection_axes",
]

_ROUNDING = 1e-9


def along_fields(matrix: Tensor, x: Tensor, event_dim: int) -> Tensor:
    """A matrix applied to the fields of events: to vectors, or to the channels of images at each pixel.

    >>> along_fields(torch.ones(1, 3), torch.ones(2, 3, 4, 4), 3).shape
    torch.Size([2, 1, 4, 4])
    """
    if event_dim == 1:
        return x @ matrix.T
    return (matrix @ x.flatten(1 - event_dim)).unflatten(-1, x.shape[1 - event_dim :])


@dataclass(frozen=True)
class IrreducibleBlock:
    """An irreducible block of the fields: orthonormal rows ``(d, sum of field sizes)`` and their representation."""

    rows: Tensor
    representation: Representation
    is_trivial: bool


def irreducible_blocks(action: LinearAction) -> list[IrreducibleBlock]:
    """All irreducible blocks of the fields, the invariant ones first; a field that is irreducible stays as it is.

    Bases are chosen so that the group permutes the basis vectors up to signs, where the irrep allows it (every irrep of
    C1, C2, C4, D1, D2 and D4 does), so that a scale may act element by element. They are canonical: every machine
    finds the same ones.
    """
    return [
        block_of(action, rows)
        for isotype in action.field_decomposition()
        for rows in block_rows(action, isotype, monomial_basis(isotype, action))
    ]


def block_of(action: LinearAction, rows: Tensor) -> IrreducibleBlock:
    """The block that the given rows span; they lie within one field.

    Raises:
        ValueError: rows of another width, not orthonormal, in several fields, or of a subspace that is not invariant.
    """
    starts = list(itertools.accumulate(action.field_sizes, initial=0))
    rows = torch.as_tensor(rows, dtype=torch.float64)
    if rows.ndim != 2 or rows.shape[1] != starts[-1] or not 0 < len(rows) <= starts[-1]:
        raise ValueError(f"expected rows of a block of shape (d, {starts[-1]}) for {action}, got {tuple(rows.shape)}")
    used = [bool(rows[:, start:end].abs().max() > _ROUNDING) for start, end in itertools.pairwise(starts)]
    if sum(used) != 1:
        raise ValueError(f"expected the rows of a block to lie within one field of {action}, got {sum(used)}")
    label = used.index(True)
    field, local = action.fields[label], rows[:, starts[label] : starts[label + 1]]
    images = local @ field.matrices(action.point_group.generators())
    if bool(((images @ local.T @ local - images).abs() > _ROUNDING).any()):
        raise ValueError(
            f"expected rows of an invariant subspace of {field}, got rows that a generator leads out of it"
        )
    if torch.equal(local, torch.eye(field.size, dtype=torch.float64)):
        representation = field
    else:
        name = "sign" if len(rows) == 1 else f"irrep of {len(rows)} dimensions"
        representation = restricted_to_subspace(field, local, name)
    return IrreducibleBlock(rows, representation, is_trivial(field, local))


def block_rows(
    action: LinearAction, isotype: Isotype, change: Tensor, pivot: Callable[[Tensor], int] = first_largest
) -> list[Tensor]:
    """The rows of each copy of the irrep, in the basis that ``change`` makes of the isotype's; ``pivot`` chooses the
    entry of the first row that is made positive, from the sizes of its entries."""
    starts = list(itertools.accumulate(action.field_sizes, initial=0))
    found = []
    for copy, label in zip(isotype.basis, isotype.labels, strict=True):
        place = slice(starts[label], starts[label + 1])
        rows = torch.zeros(isotype.dim, starts[-1], dtype=torch.float64)
        if action.fields[label].size == isotype.dim:
            rows[:, place] = torch.eye(isotype.dim, dtype=torch.float64)
        else:
            local = change @ copy[:, place]
            local = torch.where(local.abs() < _ROUNDING, 0.0, local)
            rows[:, place] = local * local[0, pivot(local[0].abs())].sign()  # the mean, not minus the mean
        found.append(rows)
    return found


def reflection_axes(involutions: Tensor) -> Iterator[Tensor]:
    """The axes, then canonical vectors that elements of order 2 keep, then those that they reverse."""
    identity = torch.eye(involutions.shape[-1], dtype=torch.float64)
    yield from identity
    for matrix in involutions:
        for projector in ((identity + matrix) / 2, (identity - matrix) / 2):
            if float(projector.trace()) > 0.5:
                yield from canonical_rows(projector)


def monomial_basis(
    isotype: Isotype, action: LinearAction, candidates: Callable[[Tensor], Iterable[Tensor]] = reflection_axes
) -> Tensor:
    """An orthogonal change of basis after which the irrep permutes basis vectors up to signs; else the identity.

    Such a basis is the orbit of its first vector, up to signs; ``candidates`` names vectors to try, from the irrep's
    matrices that are their own inverses.
    """
    identity = torch.eye(isotype.dim, dtype=torch.float64)
    if isotype.dim == 1 or not action.is_finite:
        return identity
    matrices = isotype.irrep(require_enumerable(action.point_group).elements())
    involutions = matrices[(matrices - matrices.mT).abs().amax((-2, -1)) < _ROUNDING]
    for candidate in candidates(involutions):
        basis: list[Tensor] = []
        for image in matrices @ candidate:
            overlaps = torch.stack(basis).mv(image).abs() if basis else identity[:0, 0]
            if bool((overlaps < _ROUNDING).all()):
                basis.append(image)
            elif not bool(((overlaps < _ROUNDING) | (overlaps > 1 - _ROUNDING)).all()):
                break
        else:
            return torch.stack(basis)
    return identity
