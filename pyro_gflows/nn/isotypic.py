"""The change of basis from an event to its isotypic components and back.

The action on a vector splits into irreps, the smallest building blocks. All copies of one irrep together make an
isotypic component. Equivariant layers compute in a basis in which these components are side by side.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.splits.irrep_basis import along_fields
from pyro_gflows.groups import Isotype
from pyro_gflows.nn.basis import FixedBasis

__all__ = ["ChangeOfBasis", "IsotypicBasis", "IsotypicParts", "isotypic_basis"]


class ChangeOfBasis(Protocol):
    """The type of a map from flattened events to coordinates in isotypic components, one after the other, and back.

    Attributes:
        sizes: The dimension of each component.
    """

    sizes: list[int]

    def coordinates(self, x: Tensor) -> Tensor:
        """The coordinates of x, shape ``batch + (sum of sizes,)``."""

    def event(self, coordinates: Tensor) -> Tensor:
        """The vector with these coordinates, shape ``batch + (numel,)``."""


class IsotypicBasis(FixedBasis):
    """Orthonormal bases of isotypic components as the rows of one matrix, which is saved with the weights.

    Coordinates are in the order of the rows: one component after the other, and within a component one copy after the
    other.

    Args:
        rows: Orthonormal rows, shape ``(sum of sizes, numel)``.
        sizes: The dimension of each component.
        event_dim: 1 for vectors; 3 for components of the fields of images, whose coordinates are taken at each pixel.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.regular("C4")
        >>> basis = IsotypicBasis.of(action.decomposition, action.numel)
        >>> [part.shape[-1] for part in basis.split(torch.zeros(5, 4))]
        [1, 1, 2]
    """

    def __init__(self, rows: Tensor, sizes: Sequence[int], *, event_dim: int = 1) -> None:
        super().__init__(rows)
        self.sizes, self._event_dim = list(sizes), event_dim

    @classmethod
    def of(cls, isotypes: Sequence[Isotype], numel: int, *, event_dim: int = 1) -> IsotypicBasis:
        """The basis of the listed components.

        Args:
            isotypes: Components of an action.
            numel: The number of coordinates of a vector, or of channels of an image.
            event_dim: 1 for vectors, 3 for images.

        Raises:
            ValueError: If the events are so large that their isotypic components have no dense basis.
        """
        rows = [isotype.basis.flatten(0, 1) for isotype in isotypes]
        stacked = torch.cat(rows) if rows else torch.zeros(0, numel)
        return cls(stacked, [len(row) for row in rows], event_dim=event_dim)

    def coordinates(self, x: Tensor) -> Tensor:
        return along_fields(self(x), x, self._event_dim)

    def event(self, coordinates: Tensor) -> Tensor:
        return along_fields(self(coordinates).T, coordinates, self._event_dim)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The coordinates of x in each component."""
        return self.coordinates(x).split(self.sizes, -self._event_dim)


class _FormulaBasis(nn.Module):
    """The first components of an event, in a basis that no matrix holds; there is nothing to save."""

    def __init__(self, action: LinearAction, count: int) -> None:
        super().__init__()
        self.action, self.sizes = action, action.decomposition.sizes[:count]

    def coordinates(self, x: Tensor) -> Tensor:
        return self.action.decomposition.coordinates(x)[..., : sum(self.sizes)]

    def event(self, coordinates: Tensor) -> Tensor:
        padded = nn.functional.pad(coordinates, (0, self.action.numel - sum(self.sizes)))
        return self.action.decomposition.event(padded)


def isotypic_basis(action: LinearAction, count: int | None = None) -> ChangeOfBasis:
    """The change of basis to the isotypic components of an action, as a module.

    It holds a matrix, except for large events and for rows, whose components are known in closed form.

    Args:
        action: An action with a decomposition.
        count: How many of the first components to take; None for all.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> basis = isotypic_basis(ImageAction("D4", 3, size=32), 1)
        >>> basis.event(torch.ones(basis.sizes[0])).shape
        torch.Size([3072])
    """
    components = action.decomposition
    count = len(components) if count is None else count
    if components.is_large or components.in_closed_form:
        return _FormulaBasis(action, count)
    return IsotypicBasis.of(components[:count], action.numel)


class IsotypicParts(nn.Module):
    """The orthogonal projections of a vector on the isotypic components of an action, in coordinates.

    If there is only one component, its coordinates are those of the vector itself.

    Args:
        action: An action with a decomposition.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> parts = IsotypicParts(VectorAction.regular("C4"))
        >>> x = torch.arange(4, dtype=torch.float64)
        >>> torch.allclose(parts.merge(parts.split(x)), x)
        True
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        components = action.decomposition
        self.sizes = components.sizes
        self.basis: ChangeOfBasis
        if components.in_closed_form:
            self.basis = isotypic_basis(action)
        elif len(components) == 1:
            self.basis = IsotypicBasis(torch.eye(action.numel, dtype=torch.float64), self.sizes)
        else:
            self.basis = IsotypicBasis.of(components, action.numel)

    def __len__(self) -> int:
        return len(self.sizes)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The coordinates of x in each component, for x of shape ``batch + (d,)``."""
        return (x,) if len(self) == 1 else self.basis.coordinates(x).split(self.sizes, -1)

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """The vector with these coordinates."""
        return parts[0] if len(self) == 1 else self.basis.event(torch.cat(list(parts), -1))
