"""ProductGroup: the direct product of finite groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.serialization.registry import registered

__all__ = ["ProductGroup"]

_LARGEST = 1024  # representations of a product hold one matrix for each element


@registered
class ProductGroup(EnumerableGroup):
    """The direct product of finite groups: an element consists of one element of each factor.

    This is the group of several independent symmetries, such as permutations of components together with one sign flip
    of the whole. Elements of different factors commute with each other. The elements ``(i, j, ...)`` are numbered so
    that the last factor counts fastest.

    Args:
        groups: The factors. ``parse_group("S3 x C2")`` makes a product by name.

    Raises:
        TypeError: A factor is not a group.
        ValueError: There is no factor, a factor is continuous, or the product has more than 1024 elements.

    Example:
        >>> from pyro_gflows.groups.finite import CyclicGroup
        >>> from pyro_gflows.groups.symmetric import SymmetricGroup
        >>> group = ProductGroup([SymmetricGroup(3), CyclicGroup(2)])
        >>> group, group.order, group.project(torch.tensor([1, 7]), 0).tolist()
        (S3 x C2, 12, [0, 3])
    """

    def __init__(self, groups: Sequence[Group]) -> None:
        factors: list[EnumerableGroup] = []
        for group in groups:
            if not isinstance(group, Group):
                raise TypeError(f"expected groups, got {group!r}; by name, use parse_group('S3 x C2')")
            if not isinstance(group, EnumerableGroup):
                raise ValueError(f"a product is made of finite groups, got {group}; use a finite subgroup such as D16")
            factors.append(group)
        if not factors:
            raise ValueError("expected at least one factor, got none")
        self.factors = tuple(factors)
        self.name = " x ".join(factor.name for factor in factors)
        self.order = math.prod(factor.order for factor in factors)
        if self.order > _LARGEST:
            raise ValueError(f"expected a product of at most {_LARGEST} elements, got {self.name}")

    def project(self, elements: Tensor, index: int) -> Tensor:
        """The component of each element in one factor.

        Args:
            elements: Elements of the product.
            index: The index of the factor.
        """
        below = math.prod(factor.order for factor in self.factors[index + 1 :])
        return elements // below % self.factors[index].order

    def _join(self, components: Sequence[Tensor]) -> Tensor:
        """The elements with these components, one for each factor."""
        elements = torch.zeros_like(components[0])
        for factor, component in zip(self.factors, components, strict=True):
            elements = elements * factor.order + component
        return elements

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        return self._join(
            [
                factor.compose(self.project(first, index), self.project(second, index))
                for index, factor in enumerate(self.factors)
            ]
        )

    def inverse(self, elements: Tensor) -> Tensor:
        return self._join([factor.inverse(self.project(elements, index)) for index, factor in enumerate(self.factors)])

    def generators(self) -> Tensor:
        found = torch.zeros(0, dtype=torch.int64)
        for factor in self.factors:
            found = torch.cat([found * factor.order, factor.generators()])
        return found

    def _key(self) -> Any:
        return self.factors
