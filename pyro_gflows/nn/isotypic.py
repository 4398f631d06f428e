"""The change of basis from an event to its isotypic components and back: the one place where modules get it from."""

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
    """From flattened events to coordinates in isotypic components, one component after the other, and back."""

    sizes: list[int]
    """The dimension of each component."""

    def coordinates(self, x: Tensor) -> Tensor:
        """The coordinates of x, shape ``batch + (sum of sizes,)``."""

    def event(self, coordinates: Tensor) -> Tensor:
        """The vector that has these coordinates, shape ``batch + (numel,)``."""


class IsotypicBasis(FixedBasis):
    r"""Bases of isotypic components under one another, as one matrix that is saved with the weights.

    Coordinates are in the order of the rows: component by component, in each copy by copy.

    Args:
        rows: orthonormal rows, shape ``(sum of sizes, numel)``.
        sizes: the dimension of each component.
        event_dim: 1, or 3 for components of the fields of images, whose coordinates are taken at each pixel.

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
        """The basis of the listed components of vectors of ``numel`` entries, or of as many channels.

        Raises:
            ValueError: the events are so large that their isotypes give no dense basis.
        """
        rows = [isotype.basis.flatten(0, 1) for isotype in isotypes]
        stacked = torch.cat(rows) if rows else torch.zeros(0, numel)
        return cls(stacked, [len(row) for row in rows], event_dim=event_dim)

    def coordinates(self, x: Tensor) -> Tensor:
        return along_fields(self(x), x, self._event_dim)

    def event(self, coordinates: Tensor) -> Tensor:
        return along_fields(self(coordinates).T, coordinates, self._event_dim)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """The coordinates in each component."""
        return self.coordinates(x).split(self.sizes, -self._event_dim)


class _LargeBasis(nn.Module):
    """The first so many components of an event that is too large for a matrix: an operator, with nothing to save."""

    def __init__(self, action: LinearAction, count: int) -> None:
        super().__init__()
        self.action, self.sizes = action, action.decomposition.sizes[:count]

    def coordinates(self, x: Tensor) -> Tensor:
        return self.action.decomposition.coordinates(x)[..., : sum(self.sizes)]

    def event(self, coordinates: Tensor) -> Tensor:
        padded = nn.functional.pad(coordinates, (0, self.action.numel - sum(self.sizes)))
        return self.action.decomposition.event(padded)


def isotypic_basis(action: LinearAction, count: int | None = None) -> ChangeOfBasis:
    """The change of basis to the components of an action: a module, with a matrix where the event is small.

    Args:
        action: any action with a decomposition.
        count: how many of the first components; None: all.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> basis = isotypic_basis(ImageAction("D4", 3, size=32), 1)
        >>> basis.event(torch.ones(basis.sizes[0])).shape
        torch.Size([3072])
    """
    components = action.decomposition
    count = len(components) if count is None else count
    if components.is_large:
        return _LargeBasis(action, count)
    return IsotypicBasis.of(components[:count], action.numel)


class IsotypicParts(nn.Module):
    """The orthogonal projections of a vector on the isotypic components of an action.

    Where there is one component only, the coordinates are those of the vector itself.

    Args:
        action: any action with a decomposition.
    """

    def __init__(self, action: LinearAction) -> None:
        super().__init__()
        components = action.decomposition
        self.sizes = components.sizes
        if len(components) == 1:
            self.basis = IsotypicBasis(torch.eye(action.numel, dtype=torch.float64), self.sizes)
        else:
            self.basis = IsotypicBasis.of(components, action.numel)

    def __len__(self) -> int:
        return len(self.sizes)

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        """Coordinates of x (``batch + (d,)``) in each component."""
        return (x,) if len(self) == 1 else self.basis.split(x)

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        """The vector with these coordinates."""
        return parts[0] if len(self) == 1 else self.basis.event(torch.cat(list(parts), -1))
