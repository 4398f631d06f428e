"""Orthogonal representations: how one block of a vector moves under a group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group, require_enumerable
from pyro_gflows.groups.canonical_basis import Nearly
from pyro_gflows.groups.continuous import ContinuousGroup
from pyro_gflows.groups.escnn_adapter import evaluate_continuous
from pyro_gflows.groups.finite import PlanarGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.numerics.constants import rows_at
from pyro_gflows.serialization.registry import registered

__all__ = [
    "DefiningRepresentation",
    "EscnnRepresentation",
    "MatrixRepresentation",
    "QuotientRepresentation",
    "RegularRepresentation",
    "Representation",
    "RowsRepresentation",
    "TrivialRepresentation",
    "permutation_matrices",
]


class Representation:
    """An orthogonal representation rho: G -> O(size), evaluated in float64.

    ``band`` bounds the degree of its entries as polynomials of the defining matrix (0 for finite groups, where the
    average over all elements is exact anyway).
    """

    group: Group
    size: int
    band: int = 0
    name: str

    def matrices(self, elements: Tensor) -> Tensor:
        """rho(g) for each element, on its device, shape ``elements' batch shape + (size, size)``."""
        raise NotImplementedError

    def _key(self) -> Any:
        return (type(self).__name__, self.group, self.name, self.size)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Representation) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"{self.name} of {self.group}"


def permutation_matrices(targets: Tensor) -> Tensor:
    """Matrices with ``P[targets[j], j] = 1`` for each row of ``targets``, float64."""
    return torch.nn.functional.one_hot(targets, targets.shape[-1]).double().mT


class _Tabulated(Representation):
    """A representation of a finite group by a table of matrices, one for each element."""

    table: Tensor

    def matrices(self, elements: Tensor) -> Tensor:
        return rows_at(self.table.to(elements.device), elements)


@registered
class TrivialRepresentation(Representation):
    """rho(g) = 1 on one number.

    Example:
        >>> TrivialRepresentation("O(2)").size
        1
    """

    size = 1
    name = "trivial"

    def __init__(self, group: Group | str) -> None:
        self.group = parse_group(group)

    def matrices(self, elements: Tensor) -> Tensor:
        return torch.ones(*self.group.batch_shape(elements), 1, 1, dtype=torch.float64, device=elements.device)


@registered
class DefiningRepresentation(Representation):
    """The group as it is named: C_n, D_n, SO(2), O(2) on the plane, SO(3), O(3) on space.

    Raises:
        ValueError: a group that is not one of these.

    Example:
        >>> DefiningRepresentation("C4").matrices(torch.tensor(1)).tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """

    name = "defining"

    def __init__(self, group: Group | str) -> None:
        self.group = parse_group(group)
        if isinstance(self.group, ContinuousGroup):
            self.size, self.band = self.group.dimension, 1
        elif isinstance(self.group, PlanarGroup):
            self.size = 2
        else:
            raise ValueError(f"expected C_n, D_n, SO(2), O(2), SO(3) or O(3), got {self.group}, which has no plane")

    def matrices(self, elements: Tensor) -> Tensor:
        if not isinstance(self.group, PlanarGroup):
            return elements
        return rows_at(self.group.plane().to(elements.device), elements)

    def _key(self) -> Any:
        return (*super()._key(), self.group.name)  # C2 and D1 are one group that moves the plane in two ways


@registered
class RegularRepresentation(_Tabulated):
    """The group permuting its own elements, R^|G|.

    Raises:
        ValueError: an infinite group.

    Example:
        >>> RegularRepresentation("D4").size
        8
    """

    name = "regular"

    def __init__(self, group: Group | str) -> None:
        self.group = require_enumerable(parse_group(group), "a regular representation")
        self.size = self.group.order
        self.table = permutation_matrices(self.group.regular())


@registered
class QuotientRepresentation(_Tabulated):
    """The group permuting the cosets of a subgroup, given by the indices of its elements.

    Raises:
        ValueError: an infinite group, or indices that are not those of a subgroup.

    Example:
        >>> QuotientRepresentation("D4", [0, 4]).size  # element 4 of D4 is a mirror
        4
    """

    def __init__(self, group: Group | str, subgroup: Sequence[int]) -> None:
        self.group = require_enumerable(parse_group(group), "a quotient representation")
        self.table = permutation_matrices(self.group.coset_action(subgroup))
        self.size = self.table.shape[-1]
        self.name = f"quotient by {sorted(int(index) for index in subgroup)}"


@registered
class RowsRepresentation(_Tabulated):
    """S_n permuting the rows of an n x ``features`` matrix, flattened row by row.

    Raises:
        ValueError: not a symmetric group, or no features.

    Example:
        >>> RowsRepresentation("S3", features=2).size
        6
    """

    def __init__(self, group: Group | str, features: int = 1) -> None:
        parsed = parse_group(group)
        if not isinstance(parsed, SymmetricGroup):
            raise ValueError(f"rows are permuted by a symmetric group such as 'S3', got {parsed}")
        if features < 1:
            raise ValueError(f"expected a positive number of features, got {features}")
        self.group = parsed
        permutations = permutation_matrices(parsed.permutations()).contiguous()
        self.table = torch.kron(permutations, torch.eye(features, dtype=torch.float64))
        self.size = self.table.shape[-1]
        self.name = "rows" if features == 1 else f"rows of {features}"


@registered
class MatrixRepresentation(_Tabulated):
    """A finite group's representation by the user's own matrices, one for each element, shape ``(|G|, d, d)``.

    Raises:
        ValueError: wrong shape, or matrices that are not orthogonal or do not multiply as the group does (to 1e-11).

    Example:
        >>> from pyro_gflows.groups.finite import CyclicGroup
        >>> MatrixRepresentation(CyclicGroup(2), [[[1.0]], [[-1.0]]], name="sign").size
        1
    """

    def __init__(self, group: EnumerableGroup, matrices: Sequence[Any] | Tensor, *, name: str = "matrices") -> None:
        table = torch.as_tensor(matrices, dtype=torch.float64)
        if table.ndim != 3 or table.shape[0] != group.order or table.shape[1] != table.shape[2]:
            raise ValueError(f"expected matrices of shape ({group.order}, d, d), got {tuple(table.shape)}")
        self.group, self.table, self.size, self.name = group, table, table.shape[-1], name
        orthogonality = (table @ table.mT - torch.eye(self.size, dtype=torch.float64)).abs().max().item()
        generators = group.generators()[:, None]
        products = table[generators] @ table
        expected = table[group.compose(generators, group.elements())]
        homomorphism = (products - expected).abs().amax().item() if len(products) else 0.0
        if max(orthogonality, homomorphism) > 1e-11:
            raise ValueError(
                f"expected an orthogonal representation of {group}, got defects {orthogonality:.1e} in M M^T = 1 and "
                f"{homomorphism:.1e} in M(g) M(h) = M(gh); give the matrices in float64"
            )

    def _key(self) -> Any:
        return (type(self).__name__, self.group, Nearly(self.table))


@registered
class EscnnRepresentation(Representation):
    """A representation of SO(2), O(2), SO(3) or O(3) as escnn writes it: irreps and a change of basis."""

    name = "escnn"

    def __init__(self, group: Group | str, irreps: Sequence[Sequence[int]], change_of_basis: Tensor) -> None:
        self.group = parse_group(group)
        self.irreps = [tuple(int(i) for i in irrep) for irrep in irreps]
        self.change_of_basis = torch.as_tensor(change_of_basis, dtype=torch.float64)
        self.size = self.change_of_basis.shape[0]
        self.band = max(irrep[-1] for irrep in self.irreps)
        self.name = "+".join("irrep" + str(irrep).replace(" ", "") for irrep in self.irreps)

    def matrices(self, elements: Tensor) -> Tensor:
        return evaluate_continuous(self.group.name, self.irreps, self.change_of_basis, elements)

    def _key(self) -> Any:
        return (*super()._key(), Nearly(self.change_of_basis))
