"""FundamentalDomain: a cone that holds exactly one image of every vector of keys."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_gflows.groups.base import Group

__all__ = ["FundamentalDomain", "Represent", "axis_aligned", "common_fixed_space"]

Represent = Callable[[Tensor], Tensor]
"""A function from group elements to the matrices by which they act on events, shape ``(..., N, N)``."""

_ZERO = 1e-9


class FundamentalDomain(ABC):
    r"""A cone D that holds exactly one image of every vector of keys under a finite group, up to its walls.

    A few *keys* of an event, such as one feature of each of its rows, tell which element of a group takes the event to
    a canonical form: the one that takes the vector k of the keys into D, as sorting does. The group acts on the keys
    linearly and faithfully. D has as many walls as the keys have dimensions, and it consists of the keys with positive
    *gaps*, which are linear functions of the keys: the distances to the walls, such as the differences of neighboring
    sorted keys.

    Attributes:
        group: The group.
        size: The number of keys.
        dimension: The number of gaps, which is the dimension of the space of the keys (less than ``size`` if the keys
            sum to 0).
        order: The number of elements of the group that acts.
        log_det: :math:`\log|\det|` of the map from gaps to keys, in orthonormal coordinates of the keys.
        has_only_mirrors: Whether each wall is the mirror of a reflection of the group, so that an invariant density is
            continuous across it whatever values it has in D.
    """

    group: Group
    size: int
    dimension: int
    order: int
    log_det: float
    has_only_mirrors: bool = True

    @property
    def part_dimensions(self) -> list[int]:
        """The number of gaps of each part of the keys, as :meth:`key_spaces` gives the parts."""
        return [self.dimension]

    @abstractmethod
    def element(self, keys: Tensor) -> Tensor:
        """The element that takes keys into D.

        Args:
            keys: Keys, shape ``batch + (size,)``.
        """

    @abstractmethod
    def gaps(self, keys: Tensor) -> Tensor:
        """The gaps of keys in D.

        Args:
            keys: Keys in D, shape ``batch + (size,)``.

        Returns:
            Shape ``batch + (dimension,)``.
        """

    @abstractmethod
    def keys(self, gaps: Tensor) -> Tensor:
        """The keys in D with these gaps.

        Args:
            gaps: Gaps, shape ``batch + (dimension,)``.
        """

    @abstractmethod
    def key_spaces(self, represent: Represent, others: Sequence[Tensor]) -> list[Tensor]:
        """For each part of the keys, a basis of the linear maps from events to these keys that commute with the group.

        Args:
            represent: The matrices by which elements of the group act on events.
            others: Matrices of transformations that have to leave the keys as they are.

        Returns:
            For each part, shape ``(count, keys of this part, N)``, where the rows of a map that is a combination of the
            basis by a unit vector are orthonormal (or, if the keys sum to 0, a projection of orthonormal vectors). The
            count is 0 where there is no such map.
        """

    def centered(self, keys_of: Tensor, event: Tensor) -> Tensor:
        """The map, changed such that the keys of an event are far from walls that are no mirrors.

        Args:
            keys_of: A map from events to keys, shape ``(size, N)``.
            event: An event, shape ``(N,)``.
        """
        return keys_of


def common_fixed_space(conditions: Sequence[Tensor]) -> Tensor:
    """An orthonormal basis of the vectors that all conditions map to 0, with few coordinates each where possible.

    Args:
        conditions: Matrices, shape ``(N, N)``.

    Returns:
        Shape ``(count, N)``.
    """
    size = conditions[0].shape[-1]
    total = sum((condition.T @ condition for condition in conditions), torch.zeros(size, size, dtype=torch.float64))
    values, vectors = torch.linalg.eigh(total)
    found = vectors[:, values < _ZERO]
    return axis_aligned(found @ found.T, found.shape[1])


def axis_aligned(projection: Tensor, rank: int) -> Tensor:
    """Orthonormal rows that span the image of an orthogonal projection, made from images of coordinate axes.

    Args:
        projection: The projection, shape ``(N, N)``.
        rank: Its rank.
    """
    rows: list[Tensor] = []
    left = projection.clone()
    for _ in range(rank):  # of all axes that are left, the one that the space holds best
        pivot = int(left.diagonal().argmax())
        row = left[pivot] / left[pivot, pivot].sqrt()
        rows.append(row)
        left = left - row[:, None] * row
    return torch.stack(rows) if rows else projection[:0]
