"""The irreducible blocks of an action's fields, in bases that are as simple as possible."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.groups.canonical_basis import canonical_rows, first_largest
from pyro_gflows.groups.isotypes import Isotype
from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.restriction import restricted_to_subspace
from pyro_gflows.groups.subspaces import is_trivial

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
    """A matrix applied to vectors, or to the channels of images at each pixel.

    Args:
        matrix: A matrix, shape ``(m, n)``.
        x: Events with n coordinates or channels.
        event_dim: The number of dimensions of an event.

    Example:
        >>> along_fields(torch.ones(1, 3), torch.ones(2, 3, 4, 4), 3).shape
        torch.Size([2, 1, 4, 4])
    """
    if event_dim == 1:
        return x @ matrix.T
    return (matrix @ x.flatten(1 - event_dim)).unflatten(-1, x.shape[1 - event_dim :])


@dataclass(frozen=True)
class IrreducibleBlock:
    """An irreducible block of the fields.

    Attributes:
        rows: Orthonormal rows that span the block, shape ``(d, sum of field sizes)``.
        representation: How the group acts on the coordinates in these rows.
        is_trivial: Whether the group leaves the block as it is.
    """

    rows: Tensor
    representation: Representation
    is_trivial: bool


def irreducible_blocks(action: LinearAction) -> list[IrreducibleBlock]:
    """All irreducible blocks of the fields, the invariant ones first.

    Bases are chosen so that the group permutes the basis vectors up to signs, where the irrep allows it (every irrep of
    C1, C2, C4, D1, D2 and D4 does), so that a layer may scale element by element. A field that is irreducible keeps its
    own basis. The bases are canonical: every machine finds the same ones.

    Args:
        action: How the group acts on events.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> [len(block.rows) for block in irreducible_blocks(VectorAction.rows("S3"))]
        [1, 2]
    """
    return [
        block_of(action, rows)
        for isotype in action.field_decomposition()
        for rows in block_rows(action, isotype, monomial_basis(isotype, action))
    ]


def block_of(action: LinearAction, rows: Tensor) -> IrreducibleBlock:
    """The block that rows within one field span.

    Args:
        action: How the group acts on events.
        rows: Orthonormal rows, shape ``(d, sum of field sizes)``.

    Raises:
        ValueError: The rows have another width, are not orthonormal, lie in several fields, or span a subspace that is
            not invariant.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> block_of(VectorAction.rows("S4"), torch.full((1, 4), 0.5)).is_trivial
        True
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
    """The rows of each copy of an irrep, after a change of basis.

    Args:
        action: How the group acts on events.
        isotype: The isotypic component that holds the copies.
        change: The orthogonal change of basis, shape ``(d, d)``.
        pivot: A function that chooses, from the absolute values of the entries of the first row, the entry that is
            made positive.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> action = VectorAction.rows("S4")
        >>> block_rows(action, action.decomposition[0], torch.eye(1).double())[0].round(decimals=4).tolist()
        [[0.5, 0.5, 0.5, 0.5]]
    """
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
    """Candidates for the first vector of a basis: the axes, and vectors that reflections keep or reverse.

    Args:
        involutions: Matrices that are their own inverses, shape ``(n, d, d)``.

    Example:
        >>> swap = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]]).double()
        >>> [vector.round(decimals=2).tolist() for vector in reflection_axes(swap)]
        [[1.0, 0.0], [0.0, 1.0], [0.71, 0.71], [0.71, -0.71]]
    """
    identity = torch.eye(involutions.shape[-1], dtype=torch.float64)
    yield from identity
    for matrix in involutions:
        for projector in ((identity + matrix) / 2, (identity - matrix) / 2):
            if float(projector.trace()) > 0.5:
                yield from canonical_rows(projector)


def monomial_basis(
    isotype: Isotype, action: LinearAction, candidates: Callable[[Tensor], Iterable[Tensor]] = reflection_axes
) -> Tensor:
    """An orthogonal change of basis after which the group permutes the basis vectors of an irrep up to signs.

    Such a basis consists of the images of its first vector, up to signs, so candidates for that vector are tried.

    Args:
        isotype: The isotypic component of the irrep.
        action: How the group acts on events.
        candidates: A function that gives the vectors to try, from the matrices of the irrep that are their own
            inverses.

    Returns:
        Shape ``(d, d)``; the identity where there is no such basis.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> action = VectorAction.plane("D4")
        >>> monomial_basis(action.decomposition[0], action).abs().sum().item()
        2.0
    """
    identity = torch.eye(isotype.dim, dtype=torch.float64)
    if isotype.dim == 1 or not action.is_enumerable:
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
