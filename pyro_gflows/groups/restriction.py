"""Restrictions of a representation to an invariant subspace, and to a subgroup."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups.canonical_basis import Nearly
from pyro_gflows.groups.finite import EnumerableGroup, Group, PlanarGroup
from pyro_gflows.groups.lifted import LiftedRepresentation
from pyro_gflows.groups.representations import MatrixRepresentation, Representation, TrivialRepresentation
from pyro_gflows.serialization.registry import registered

__all__ = [
    "SubRepresentation",
    "places_in",
    "restricted_matrices",
    "restricted_to_subgroup",
    "restricted_to_subspace",
]

_ROUNDING = 1e-9


@registered
class SubRepresentation(Representation):
    r"""A representation restricted to an invariant subspace, :math:`g \mapsto R\,\rho(g)\,R^T`.

    Args:
        representation: The representation :math:`\rho`.
        rows: Orthonormal rows R that span the subspace, float64. Every group element maps the subspace to itself.

    Raises:
        ValueError: The rows are not orthonormal (to 1e-10), or their length is not the size of the representation.

    Example:
        >>> from pyro_gflows.groups import RowsRepresentation
        >>> mean = torch.full((1, 4), 0.5, dtype=torch.float64)
        >>> SubRepresentation(RowsRepresentation("S4"), mean).matrices(torch.tensor(3)).tolist()
        [[1.0]]
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
        rows = self.rows.to(elements.device)
        return rows @ self.representation.matrices(elements) @ rows.T

    def _key(self) -> tuple[object, ...]:
        return (type(self).__name__, self.representation, Nearly(self.rows))


def restricted_matrices(matrices: Tensor, rows: Tensor) -> Tensor:
    """The matrices ``R M R^T`` on the subspace that the rows R span.

    Args:
        matrices: Matrices M, shape ``batch + (n, n)``, float64.
        rows: Orthonormal rows R, shape ``(d, n)``, float64.

    Returns:
        Shape ``batch + (d, d)``. Where all entries are integers up to rounding, they are integers exactly.

    Example:
        >>> swap = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
        >>> difference = torch.tensor([[1.0, -1.0]], dtype=torch.float64) / 2**0.5
        >>> restricted_matrices(swap, difference).tolist()
        [[[-1.0]]]
    """
    table = rows @ matrices @ rows.T
    whole = table.round()
    return whole + 0.0 if bool((table - whole).abs().max() < _ROUNDING) else table  # + 0.0: no negative zeros


def restricted_to_subspace(representation: Representation, rows: Tensor, name: str) -> Representation:
    """The representation on the invariant subspace that the rows span.

    Args:
        representation: The representation on the whole space.
        rows: Orthonormal rows that span the subspace, float64.
        name: The name of the result, where it is a table of matrices.

    Returns:
        A table of matrices for a finite group (the trivial representation where it is one), else a
        :class:`SubRepresentation`. Of a representation on one coordinate it is this one, and of a representation that
        is lifted to a product one that is lifted too.

    Raises:
        ValueError: The rows are not orthonormal, or the subspace is not invariant.

    Example:
        >>> from pyro_gflows.groups.permutation_representations import RegularRepresentation
        >>> mean = torch.full((1, 4), 0.5, dtype=torch.float64)
        >>> restricted_to_subspace(RegularRepresentation("C4"), mean, "mean")
        trivial of C4
    """
    group = representation.group
    if isinstance(representation, LiftedRepresentation):
        return representation.lifted(restricted_to_subspace(representation.representation, rows, name))
    if not isinstance(group, EnumerableGroup):
        return representation if representation.size == 1 else SubRepresentation(representation, rows)
    table = restricted_matrices(representation.matrices(group.elements()), rows)
    if table.shape[-1] == 1 and bool((table == 1.0).all()):
        return TrivialRepresentation(group)
    return MatrixRepresentation(group, table, name=name)


def places_in(subgroup: Group, group: Group) -> Tensor:
    """The element of C_n or D_n that acts on the plane as each element of a subgroup does.

    Args:
        subgroup: The smaller group, such as C4.
        group: The larger group, such as C8.

    Returns:
        For each element of the subgroup, its index in the larger group.

    Raises:
        ValueError: A group is not C_n or D_n, or the one is no subgroup of the other.

    Example:
        >>> from pyro_gflows.groups.names import parse_group
        >>> places_in(parse_group("C4"), parse_group("C8")).tolist()
        [0, 2, 4, 6]
    """
    if isinstance(subgroup, PlanarGroup) and isinstance(group, PlanarGroup):
        distances = (subgroup.plane()[:, None] - group.plane()).abs().amax((-2, -1))
        nearest = distances.min(-1)
        if bool((nearest.values < _ROUNDING).all()):
            return nearest.indices
    raise ValueError(f"expected a subgroup of {group} in the plane, got {subgroup}")


def restricted_to_subgroup(representation: Representation, subgroup: EnumerableGroup) -> MatrixRepresentation:
    """A representation of C_n or D_n restricted to a subgroup.

    Args:
        representation: The representation of the larger group.
        subgroup: The subgroup, such as C4 in C8.

    Raises:
        ValueError: A group is not C_n or D_n, or the one is no subgroup of the other.

    Example:
        >>> from pyro_gflows.groups.permutation_representations import RegularRepresentation
        >>> from pyro_gflows.groups.names import parse_group
        >>> restricted_to_subgroup(RegularRepresentation("C8"), parse_group("C4"))
        regular of C8 of C4
    """
    matrices = representation.matrices(places_in(subgroup, representation.group))
    return MatrixRepresentation(subgroup, matrices, name=str(representation))
