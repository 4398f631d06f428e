"""The coordinates in an isotypic component as a table, and equivariant linear maps as small matrices on tables."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.groups import Isotype
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.division_algebra import algebra_change
from pyro_gflows.nn.isotypic import isotypic_basis

__all__ = ["AlgebraBasis", "ComponentMaps", "ComponentTable", "small_commutant"]


def small_commutant(isotype: Isotype) -> Tensor:
    """The linear maps that commute with the irrep, or with its second factor where it is a tensor product.

    The first factor is of real type, so that nothing but multiples of the identity commutes with it.

    Args:
        isotype: The component of the irrep.

    Returns:
        An orthogonal basis, the identity first, shape ``(k, d, d)`` with k = 1, 2 or 4.
    """
    return isotype.commutant if isotype.inner is None else isotype.inner.commutant


@dataclass(frozen=True)
class ComponentTable:
    """The shape of the coordinates in an isotypic component: m copies of an irrep, a tensor product of two factors.

    Equivariant linear maps mix the copies and the second factor, and act alike on all basis vectors of the first one.
    So the coordinates are a table with one row for each of these, and a map is a small matrix that acts on every row.

    Attributes:
        copies: The number m of copies.
        outer: The dimension of the first factor; 1 where the irrep is not known to be a product.
        inner: The dimension of the second factor.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> mean, differences = map(ComponentTable.of, RowsAction(50, 3).decomposition)
        >>> differences, differences.rows(torch.zeros(5, 147)).shape
        (ComponentTable(copies=3, outer=49, inner=1), torch.Size([5, 49, 3]))
    """

    copies: int
    outer: int
    inner: int

    @classmethod
    def of(cls, isotype: Isotype) -> ComponentTable:
        """The table of a component.

        Args:
            isotype: The component.
        """
        inner = small_commutant(isotype).shape[-1]
        return cls(isotype.multiplicity, isotype.dim // inner, inner)

    @property
    def width(self) -> int:
        """The number of columns, which is the size of the small matrices."""
        return self.copies * self.inner

    def rows(self, coordinates: Tensor) -> Tensor:
        """The table, shape ``batch + (outer, width)``.

        Args:
            coordinates: The coordinates copy by copy, shape ``batch + (copies * outer * inner,)``.
        """
        return coordinates.unflatten(-1, (self.copies, self.outer, self.inner)).transpose(-3, -2).flatten(-2)

    def flat(self, rows: Tensor) -> Tensor:
        """The coordinates, which inverts :meth:`rows`.

        Args:
            rows: The table.
        """
        return rows.unflatten(-1, (self.copies, self.inner)).transpose(-3, -2).flatten(-3)


class ComponentMaps(nn.Module):
    r"""All equivariant linear maps W of an event to itself, as one small matrix for each isotypic component.

    The matrix of a component acts on each row of its table, so that the cost of a layer grows linearly with the number
    of rows that are permuted, where W itself would take its square.

    Args:
        action: How the group acts on vectors.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> [block.shape[-1] for block in ComponentMaps(RowsAction(1000, 3)).blocks()]  # of the mean, of differences
        [3, 3]
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        components = action.decomposition
        self.basis = isotypic_basis(action)
        self.tables = [ComponentTable.of(component) for component in components]
        commutants = [small_commutant(component) for component in components]
        self.commutants = nn.ModuleList(FixedBasis(commutant) for commutant in commutants)
        shapes = [(t.copies, t.copies, len(c)) for t, c in zip(self.tables, commutants, strict=True)]
        self.weights = nn.ParameterList(nn.Parameter(torch.randn(s) / (s[1] * s[2]) ** 0.5) for s in shapes)

    def blocks(self) -> list[Tensor]:
        """The small matrix of each component, shape ``(width, width)``."""
        return [
            torch.einsum("abk,kij->aibj", weight, commutant(weight)).flatten(2).flatten(0, 1)
            for weight, commutant in zip(self.weights, self.commutants, strict=True)
        ]

    def apply_blocks(self, blocks: list[Tensor], x: Tensor) -> Tensor:
        """The image of vectors under the equivariant map with these small matrices.

        Args:
            blocks: The matrix of each component.
            x: Vectors, shape ``batch + (numel,)``.
        """
        parts = self.basis.coordinates(x).split(self.basis.sizes, -1)
        images = [
            table.flat(table.rows(part) @ block.to(x).T)
            for table, part, block in zip(self.tables, parts, blocks, strict=True)
        ]
        return self.basis.event(torch.cat(images, -1))

    def forward(self, x: Tensor) -> Tensor:
        """The vectors W x."""
        return self.apply_blocks(self.blocks(), x)

    def extra_repr(self) -> str:
        return ", ".join(f"{table.width} x {table.width}" for table in self.tables)


class AlgebraBasis(nn.Module):
    """The coordinates of :func:`~pyro_gflows.nn.division_algebra.algebra_rows` for all components, without a matrix.

    Args:
        action: An action whose components are known in closed form.

    Attributes:
        sizes: The dimension of each component.

    Example:
        >>> from pyro_gflows import RowsAction
        >>> basis = AlgebraBasis(RowsAction(1000, 3))
        >>> x = torch.randn(3000, dtype=torch.float64)
        >>> bool(torch.allclose(basis.event(basis.coordinates(x)), x))
        True
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        components = action.decomposition
        self._isotypic = isotypic_basis(action)
        self.sizes = self._isotypic.sizes
        self.tables = [ComponentTable.of(component) for component in components]
        self.changes = nn.ModuleList(FixedBasis(algebra_change(small_commutant(part))) for part in components)

    def coordinates(self, x: Tensor) -> Tensor:
        """The coordinates in the order (copy, coefficient, rest), component by component.

        Args:
            x: Vectors, shape ``batch + (numel,)``.
        """
        parts = self._isotypic.coordinates(x).split(self.sizes, -1)
        changed = [
            torch.einsum("...mod,krd->...mkro", part.unflatten(-1, (t.copies, t.outer, t.inner)), change(x))
            for part, t, change in zip(parts, self.tables, self.changes, strict=True)
        ]
        return torch.cat([part.flatten(-4) for part in changed], -1)

    def event(self, coordinates: Tensor) -> Tensor:
        """The vectors with these coordinates.

        Args:
            coordinates: Coordinates, shape ``batch + (numel,)``.
        """
        parts = []
        for part, t, change in zip(coordinates.split(self.sizes, -1), self.tables, self.changes, strict=True):
            matrix = change(part)
            table = part.unflatten(-1, (t.copies, *matrix.shape[:2], t.outer))
            parts.append(torch.einsum("...mkro,krd->...mod", table, matrix).flatten(-3))
        return self._isotypic.event(torch.cat(parts, -1))
