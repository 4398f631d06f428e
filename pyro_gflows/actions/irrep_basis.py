"""The irreducible blocks of an action's fields, one by one, in bases that are as simple as they can be."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.actions.base import GroupAction
from pyro_gflows.actions.decomposition import Isotype
from pyro_gflows.actions.groups import FiniteGroup
from pyro_gflows.actions.representations import MatrixRepresentation, Representation, TrivialRepresentation
from pyro_gflows.registry import registered

__all__ = ["IrreducibleBlock", "SubRepresentation", "irreducible_blocks", "restriction"]

_ROUNDING = 1e-9


@registered
class SubRepresentation(Representation):
    r"""A representation on an invariant subspace of another one, :math:`g \mapsto R\,\rho(g)\,R^T`.

    Args:
        representation: rho.
        rows: R, orthonormal rows that span the subspace, float64.

    Raises:
        ValueError: the rows are not orthonormal (to 1e-10), or not of the representation's size.
    """

    def __init__(self, representation: Representation, rows: Tensor) -> None:
        self.rows = torch.as_tensor(rows, dtype=torch.float64)
        if self.rows.ndim != 2 or self.rows.shape[1] != representation.size:
            raise ValueError(f"expected rows of shape (n, {representation.size}), got {tuple(self.rows.shape)}")
        if not torch.allclose(self.rows @ self.rows.T, torch.eye(len(self.rows), dtype=torch.float64), atol=1e-10):
            raise ValueError("expected orthonormal rows")
        self.representation, self.group, self.band = representation, representation.group, representation.band
        self.size = len(self.rows)
        self.name = f"{self.size} dimensions of {representation.name}"

    def matrices(self, elements: Tensor) -> Tensor:
        return self.rows @ self.representation.matrices(elements) @ self.rows.T

    def _key(self) -> tuple[object, ...]:
        return (type(self).__name__, self.representation, self.rows.numpy().tobytes())


def restriction(field: Representation, rows: Tensor, name: str) -> Representation:
    """The field on the invariant subspace that the rows span; for finite groups a table, exact where it can be."""
    group = field.group
    if not isinstance(group, FiniteGroup):
        return SubRepresentation(field, rows)
    table = rows @ field.matrices(group.elements()) @ rows.T
    whole = table.round()
    if bool((table - whole).abs().max() < _ROUNDING):
        table = whole + 0.0  # no negative zeros
    if table.shape[-1] == 1 and bool((table == 1.0).all()):
        return TrivialRepresentation(group)
    return MatrixRepresentation(group, table, name=name)


@dataclass(frozen=True)
class IrreducibleBlock:
    """One irreducible block of the fields: orthonormal rows ``(d, sum of field sizes)``, and how they move."""

    rows: Tensor
    representation: Representation
    is_trivial: bool


def irreducible_blocks(action: GroupAction) -> list[IrreducibleBlock]:
    """All irreducible blocks of the fields, the invariant ones first; a field that is irreducible stays as it is.

    Bases are chosen so that the group permutes the basis vectors up to signs, where the irrep allows it (every irrep of
    C1, C2, C4, D1, D2 and D4 does), so that a scale may act element by element.
    """
    starts = list(itertools.accumulate(action.field_sizes, initial=0))
    blocks = []
    for isotype in action.field_decomposition():
        change = _monomial_basis(isotype, action)
        for copy, label in zip(isotype.basis, isotype.labels, strict=True):
            field, place = action.fields[label], slice(starts[label], starts[label + 1])
            rows = torch.zeros(isotype.dim, starts[-1], dtype=torch.float64)
            if field.size == isotype.dim:
                rows[:, place] = torch.eye(isotype.dim, dtype=torch.float64)
                representation = field
            else:
                local = change @ copy[:, place]
                local = torch.where(local.abs() < _ROUNDING, 0.0, local)
                largest = local[0, local[0].abs().argmax()]
                rows[:, place] = local * largest.sign()  # the mean, not minus the mean
                name = "sign" if isotype.dim == 1 else f"irrep of {isotype.dim} dimensions"
                representation = restriction(field, rows[:, place], name)
            blocks.append(IrreducibleBlock(rows, representation, isotype.is_trivial))
    return blocks


def _monomial_basis(isotype: Isotype, action: GroupAction) -> Tensor:
    """An orthogonal change of basis after which the irrep permutes basis vectors up to signs; else the identity."""
    identity = torch.eye(isotype.dim, dtype=torch.float64)
    if isotype.dim == 1 or not action.is_finite:
        return identity
    matrices = isotype.irrep(action.elements())
    symmetric = (matrices - matrices.mT).abs().amax((-2, -1)) < _ROUNDING
    candidates = torch.cat([identity[None], torch.linalg.eigh(matrices[symmetric])[1].mT]).flatten(0, 1)
    for candidate in candidates:
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
