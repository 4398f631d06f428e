"""ProductGroup: the direct product of groups."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.groups.order import order_in_words, product_order
from pyro_gflows.serialization.registry import registered

__all__ = ["ProductGroup"]

_LARGEST = 1024  # representations of a product hold one matrix for each element


@registered
class ProductGroup(Group):
    """The direct product of groups: an element consists of one element of each factor.

    This is the group of several independent symmetries, such as permutations of components together with one sign flip
    of the whole, or permutations of particles together with rotations of space. Elements of different factors commute
    with each other.

    If the elements of all factors can be listed and there are at most 1024 of them together, the product is an
    :class:`~pyro_gflows.groups.EnumerableGroup`. Its elements ``(i, j, ...)`` are numbered so that the last factor
    counts fastest. Otherwise an element is one vector in float64 that holds the flattened elements of the factors side
    by side, and nothing of the size of the group is computed. In both cases :meth:`project` gives the element of one
    factor, and :meth:`join` makes elements of the product.

    Args:
        groups: The factors. ``parse_group("S3 x C2")`` makes a product by name.

    Raises:
        TypeError: A factor is not a group.
        ValueError: There is no factor.

    Example:
        >>> from pyro_gflows.groups import CyclicGroup, O3, SymmetricGroup
        >>> group = ProductGroup([SymmetricGroup(3), CyclicGroup(2)])
        >>> group, group.order, group.project(torch.tensor([1, 7]), 0).tolist()
        (S3 x C2, 12, [0, 3])
        >>> particles = ProductGroup([SymmetricGroup(13), O3()])
        >>> particles, particles.element_shape, particles.project(particles.sample((5,)), 1).shape
        (S13 x O(3), torch.Size([22]), torch.Size([5, 3, 3]))
    """

    def __new__(cls, groups: Sequence[Group]) -> ProductGroup:
        listed = all(isinstance(group, EnumerableGroup) for group in groups)
        small = listed and math.prod(group.order for group in groups) <= _LARGEST
        return super().__new__(_ListedProductGroup if cls is ProductGroup and small else cls)

    def __init__(self, groups: Sequence[Group]) -> None:
        for group in groups:
            if not isinstance(group, Group):
                raise TypeError(f"expected groups, got {group!r}; by name, use parse_group('S3 x C2')")
        if not groups:
            raise ValueError("expected at least one factor, got none")
        self.factors = tuple(groups)
        self.name = " x ".join(factor.name for factor in self.factors)
        self.order = product_order([factor.order for factor in self.factors])
        if not isinstance(self, EnumerableGroup):  # of vectors, unlike of indices, the nesting of products matters
            self.name = " x ".join(_in_parentheses(factor) for factor in self.factors)
            self.element_shape = torch.Size([sum(factor.element_shape.numel() for factor in self.factors)])

    def project(self, elements: Tensor, index: int) -> Tensor:
        """The component of each element in one factor.

        Args:
            elements: Elements of the product.
            index: The index of the factor.

        Returns:
            Elements of the factor, in its own dtype.
        """
        factor = self.factors[index]
        start = sum(before.element_shape.numel() for before in self.factors[:index])
        part = elements[..., start : start + factor.element_shape.numel()]
        return part.reshape(elements.shape[:-1] + factor.element_shape).to(factor.element_dtype)

    def join(self, components: Sequence[Tensor]) -> Tensor:
        """The elements with these components, the inverse of :meth:`project`.

        Args:
            components: Elements of each factor, in the order of the factors, whose batch shapes broadcast.
        """
        pairs = list(zip(self.factors, components, strict=True))
        flat = [
            part.reshape(*factor.batch_shape(part), factor.element_shape.numel()).to(torch.float64)
            for factor, part in pairs
        ]
        batch = torch.broadcast_shapes(*[part.shape[:-1] for part in flat])
        return torch.cat([part.expand(*batch, -1) for part in flat], -1)

    def identity(self) -> Tensor:
        return self.join([factor.identity() for factor in self.factors])

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        return self.join(
            [
                factor.compose(self.project(first, index), self.project(second, index))
                for index, factor in enumerate(self.factors)
            ]
        )

    def inverse(self, elements: Tensor) -> Tensor:
        return self.join([factor.inverse(self.project(elements, index)) for index, factor in enumerate(self.factors)])

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        return self.join([factor.sample(shape, generator) for factor in self.factors])

    def generators(self) -> Tensor:
        found = []
        for index, factor in enumerate(self.factors):
            components = [other.identity() for other in self.factors]
            components[index] = factor.generators()
            found.append(self.join(components))
        return torch.cat(found)

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        rules = [factor.quadrature(band) for factor in self.factors]
        grid = torch.cartesian_prod(*[torch.arange(len(weights)) for _, weights in rules]).reshape(-1, len(rules)).T
        elements = self.join([points[where] for (points, _), where in zip(rules, grid, strict=True)])
        weights = torch.stack([weights[where] for (_, weights), where in zip(rules, grid, strict=True)])
        return elements, weights.prod(0)

    def _order_formula(self) -> str:
        formulas = [factor._order_formula() or order_in_words(factor.order) for factor in self.factors]
        return " * ".join(formulas)

    def _key(self) -> Any:
        return ("ProductGroup", *self.factors)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.factors,)  # __new__ needs it, also where a group is unpickled or copied


def _in_parentheses(factor: Group) -> str:
    return f"({factor.name})" if isinstance(factor, ProductGroup) else factor.name


class _ListedProductGroup(EnumerableGroup, ProductGroup):
    """A product of at most 1024 elements, by their indices."""

    described_as = ProductGroup
    factors: tuple[EnumerableGroup, ...]

    def project(self, elements: Tensor, index: int) -> Tensor:
        below = math.prod(factor.order for factor in self.factors[index + 1 :])
        return elements // below % self.factors[index].order

    def join(self, components: Sequence[Tensor]) -> Tensor:
        elements = torch.zeros_like(components[0])
        for factor, component in zip(self.factors, components, strict=True):
            elements = elements * factor.order + component
        return elements
