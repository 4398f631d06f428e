"""Positive keys, for sign flips that are independent of each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.flows.domains.base import FundamentalDomain, Represent, common_fixed_space
from pyro_gflows.groups.base import Group
from pyro_gflows.groups.signs import SignGroup

__all__ = ["PositiveKeys"]


class PositiveKeys(FundamentalDomain):
    r"""Keys that are all positive, :math:`k_i \ge 0`, for n flips that commute and change the sign of one key each.

    The gaps are the keys. The flips may be the signs of a group C2^n, factors C2 of a product, or the two reflections
    of D2.

    Args:
        group: The group.
        flips: The elements that change the sign of one key each, along the first dimension.

    Example:
        >>> group = SignGroup(3)
        >>> domain = PositiveKeys(group, group.generators())
        >>> group.signs_of(domain.element(torch.tensor([2.0, -1.0, -3.0]))).tolist()
        [1, -1, -1]
    """

    def __init__(self, group: Group, flips: Tensor) -> None:
        self.group, self.flips = group, flips
        self.size = self.dimension = len(flips)
        self.order = 2**self.size
        self.log_det = 0.0

    @property
    def part_dimensions(self) -> list[int]:
        return [1] * self.size

    def element(self, keys: Tensor) -> Tensor:
        signs = torch.where(keys < 0, -1, 1)
        if isinstance(self.group, SignGroup) and self.size == self.group.n:
            return self.group.elements_of(signs=signs)
        flips = self.flips.to(keys.device)
        element = self.group.identity().to(keys.device)
        for index in range(self.size):
            flipped = self.group.compose(element, flips[index])
            negative = (signs[..., index] < 0)[(..., *[None] * len(self.group.element_shape))]
            element = torch.where(negative, flipped, element)
        return element

    def gaps(self, keys: Tensor) -> Tensor:
        return keys

    def keys(self, gaps: Tensor) -> Tensor:
        return gaps

    def key_spaces(self, represent: Represent, others: Sequence[Tensor]) -> list[Tensor]:
        matrices = [represent(flip) for flip in self.flips]
        unit = torch.eye(len(matrices[0]), dtype=torch.float64)
        fixed = [other - unit for other in others]
        spaces = []
        for own in range(self.size):
            signs = [matrix + unit if index == own else matrix - unit for index, matrix in enumerate(matrices)]
            spaces.append(common_fixed_space([*signs, *fixed])[:, None])
        return spaces
