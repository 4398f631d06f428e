"""Wedges of the plane, for its rotations with or without reflections."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.flows.domains.base import FundamentalDomain, Represent, common_fixed_space
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup

__all__ = ["Sector", "Wedge"]


class _Cone(FundamentalDomain):
    """The vectors of the plane at angles from 0 to some angle below 180 degrees."""

    group: CyclicGroup | DihedralGroup

    def __init__(self, group: CyclicGroup | DihedralGroup, angle: float) -> None:
        if group.n < 3:
            raise ValueError(f"expected at least 3 rotations, got {group}: fewer are sign flips")
        self.group, self.angle, self.order = group, angle, group.order
        self.size = self.dimension = 2
        self.log_det = -math.log(math.sin(angle))

    def _place(self, keys: Tensor) -> Tensor:
        """The index of the image of the cone that holds the keys, counted by angles."""
        turns = torch.atan2(keys[..., 1], keys[..., 0]) / self.angle
        return turns.floor().to(torch.int64) % round(2 * math.pi / self.angle)

    def gaps(self, keys: Tensor) -> Tensor:
        x, y = keys.unbind(-1)
        return torch.stack([y, math.sin(self.angle) * x - math.cos(self.angle) * y], -1)

    def keys(self, gaps: Tensor) -> Tensor:
        y, other = gaps.unbind(-1)
        return torch.stack([(other + math.cos(self.angle) * y) / math.sin(self.angle), y], -1)

    def key_spaces(self, represent: Represent, others: Sequence[Tensor]) -> list[Tensor]:
        # the map to the plane takes the rotation to one by this angle: v and w are the rows of the map
        rotation = represent(torch.tensor(1)).T
        cosine, sine = math.cos(2 * math.pi / self.group.n), math.sin(2 * math.pi / self.group.n)
        unit = torch.eye(len(rotation), dtype=torch.float64)
        conditions = [rotation @ rotation - 2 * cosine * rotation + unit, *[other - unit for other in others]]
        if isinstance(self.group, DihedralGroup):
            conditions.append(represent(torch.tensor(self.group.n)) - unit)
        first = common_fixed_space(conditions)
        second = (cosine * first - first @ rotation.T) / sine
        return [torch.stack([first, second], 1)]


class Wedge(_Cone):
    """The vectors of the plane at angles from 0 to 180/n degrees, for the rotations and reflections of D_n, n >= 3.

    Both walls are mirrors.

    Args:
        group: The dihedral group.

    Example:
        >>> domain = Wedge(DihedralGroup(4))
        >>> domain.element(torch.tensor([1.0, 2.0])).item()  # the reflection with y -> -y, followed by a rotation
        5
    """

    group: DihedralGroup

    def __init__(self, group: DihedralGroup) -> None:
        super().__init__(group, math.pi / group.n)

    def element(self, keys: Tensor) -> Tensor:
        n, place = self.group.n, self._place(keys)
        rotated, reflected = -(place // 2) % n, n + (place + 1) // 2 % n
        return torch.where(place % 2 == 0, rotated, reflected)


class Sector(_Cone):
    """The vectors of the plane at angles from 0 to 360/n degrees, for the rotations of C_n, n >= 3.

    A rotation takes one edge to the other. They are no mirrors, so that an invariant density may jump there.

    Args:
        group: The cyclic group.

    Example:
        >>> domain = Sector(CyclicGroup(4))
        >>> domain.element(torch.tensor([-1.0, 1.0])).item()  # from 135 to 45 degrees
        3
    """

    group: CyclicGroup
    has_only_mirrors = False

    def __init__(self, group: CyclicGroup) -> None:
        super().__init__(group, 2 * math.pi / group.n)

    def element(self, keys: Tensor) -> Tensor:
        return -self._place(keys) % self.group.n

    def centered(self, keys_of: Tensor, event: Tensor) -> Tensor:
        x, y = (keys_of @ event).tolist()
        by = 0.5 * self.angle - math.atan2(y, x)
        rotation = [[math.cos(by), -math.sin(by)], [math.sin(by), math.cos(by)]]
        return torch.tensor(rotation, dtype=torch.float64, device=keys_of.device) @ keys_of
