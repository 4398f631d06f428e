"""ProductDomain: the product of the domains of some factors of a product of groups."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from pyro_gflows.flows.domains.base import FundamentalDomain, Represent
from pyro_gflows.groups.products import ProductGroup

__all__ = ["ProductDomain"]


class ProductDomain(FundamentalDomain):
    """The product of one domain for each of some factors of a product of groups; the other factors stay as they are.

    Args:
        group: The product.
        parts: For each of these factors, by its index, its domain.

    Example:
        >>> from pyro_gflows.flows.domains.permutations import SortedRows
        >>> from pyro_gflows.groups import parse_group
        >>> group = parse_group("S3 x C2")
        >>> domain = ProductDomain(group, {0: SortedRows(group.factors[0])})
        >>> domain.order, group.project(domain.element(torch.tensor([2.0, -3.0, 1.0])), 1).item()
        (6, 0)
    """

    group: ProductGroup

    def __init__(self, group: ProductGroup, parts: Mapping[int, FundamentalDomain]) -> None:
        self.group, self.parts = group, dict(parts)
        domains = list(self.parts.values())
        self.size = sum(part.size for part in domains)
        self.dimension = sum(part.dimension for part in domains)
        self.order = math.prod(part.order for part in domains)
        self.log_det = sum(part.log_det for part in domains)
        self.has_only_mirrors = all(part.has_only_mirrors for part in domains)

    def _split(self, values: Tensor, sizes: Sequence[int]) -> list[tuple[FundamentalDomain, Tensor]]:
        return list(zip(self.parts.values(), values.split(list(sizes), -1), strict=True))

    @property
    def part_dimensions(self) -> list[int]:
        return [dimension for part in self.parts.values() for dimension in part.part_dimensions]

    @property
    def _sizes(self) -> list[int]:
        return [part.size for part in self.parts.values()]

    def element(self, keys: Tensor) -> Tensor:
        found = dict(zip(self.parts, (part.element(own) for part, own in self._split(keys, self._sizes)), strict=True))
        batch = keys.shape[:-1]
        components = []
        for index, factor in enumerate(self.group.factors):
            identity = factor.identity().to(keys.device).expand(batch + factor.element_shape)
            components.append(found.get(index, identity))
        return self.group.join(components)

    def gaps(self, keys: Tensor) -> Tensor:
        return torch.cat([part.gaps(own) for part, own in self._split(keys, self._sizes)], -1)

    def keys(self, gaps: Tensor) -> Tensor:
        dimensions = [part.dimension for part in self.parts.values()]
        return torch.cat([part.keys(own) for part, own in self._split(gaps, dimensions)], -1)

    def key_spaces(self, represent: Represent, others: Sequence[Tensor]) -> list[Tensor]:
        generators = {index: list(self.within(represent, index)(part.group.generators())) for index, part in self._all}
        spaces: list[Tensor] = []
        for index, part in self._all:
            rest = [matrix for other, matrices in generators.items() if other != index for matrix in matrices]
            found = part.key_spaces(self.within(represent, index), [*others, *rest])
            spaces += found
        return spaces

    @property
    def _all(self) -> list[tuple[int, FundamentalDomain]]:
        return list(self.parts.items())

    def within(self, represent: Represent, index: int) -> Represent:
        """How elements of one factor act on events.

        Args:
            represent: How elements of the product act on events.
            index: The index of the factor.
        """

        def of_factor(elements: Tensor) -> Tensor:
            batch = self.group.factors[index].batch_shape(elements)
            components = [
                elements if other == index else factor.identity().expand(batch + factor.element_shape)
                for other, factor in enumerate(self.group.factors)
            ]
            return represent(self.group.join(components))

        return of_factor

    def centered(self, keys_of: Tensor, event: Tensor) -> Tensor:
        pieces = zip(self.parts.values(), keys_of.split(self._sizes), strict=True)
        return torch.cat([part.centered(own, event) for part, own in pieces])
