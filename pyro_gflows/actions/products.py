"""Direct products of finite groups."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.actions.groups import FiniteGroup, Group
from pyro_gflows.registry import registered

__all__ = ["ProductGroup"]

_LARGEST = 1024  # a table of 8 MB


@registered
class ProductGroup(FiniteGroup):
    """The direct product of finite groups: one element of each, and factors do not mix.

    Element ``(i, j, ...)`` has the index that counts the last factor fastest.

    Args:
        groups: the factors; by name, ``parse_group("S3 x C2")``.

    Raises:
        TypeError: a factor is not a group.
        ValueError: no factor, a continuous one, or more than 1024 elements.

    Example:
        >>> from pyro_gflows.actions import CyclicGroup, SymmetricGroup
        >>> group = ProductGroup([SymmetricGroup(3), CyclicGroup(2)])
        >>> group, group.order, group.project(torch.tensor([1, 7]), 0).tolist()
        (S3 x C2, 12, [0, 3])
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        factors: list[FiniteGroup] = []
        for group in groups:
            if not isinstance(group, Group):
                raise TypeError(f"expected groups, got {group!r}; by name, use parse_group('S3 x C2')")
            if not isinstance(group, FiniteGroup):
                raise ValueError(f"a product is made of finite groups, got {group}; use a finite subgroup such as D16")
            factors.append(group)
        if not factors:
            raise ValueError("expected at least one factor, got none")
        self.factors = tuple(factors)
        table, generators = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        for factor in factors:
            if len(table) * factor.order > _LARGEST:
                raise ValueError(
                    f"expected a product of at most {_LARGEST} elements, got {' x '.join(map(str, groups))}"
                )
            table = (table[:, None, :, None] * factor.order + factor.table[None, :, None, :]).flatten(2).flatten(0, 1)
            generators = torch.cat([generators * factor.order, factor.generators()])
        super().__init__(" x ".join(factor.name for factor in factors), table, generators.tolist())

    def project(self, elements: Tensor, index: int) -> Tensor:
        """The component of each element in factor ``index``."""
        below = 1
        for factor in self.factors[index + 1 :]:
            below *= factor.order
        return elements // below % self.factors[index].order
