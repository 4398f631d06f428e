"""Direct products of finite groups, and how the actions of a factor become actions of the product."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.groups import FiniteGroup, Group, parse_group
from pyro_gflows.actions.representations import MatrixRepresentation
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.registry import registered

__all__ = ["ProductGroup"]

_LARGEST = 1024  # a table of 8 MB


@registered
class ProductGroup(FiniteGroup):
    """The direct product of finite groups: one element of each, and factors do not mix.

    Element ``(i, j, ...)`` has the index that counts the last factor fastest.

    Args:
        groups: the factors, or their names.

    Raises:
        ValueError: no factor, a continuous one, or more than 1024 elements.

    Example:
        >>> group = ProductGroup(["S3", "C2"])
        >>> group, group.order, group.project(torch.tensor([1, 7]), 0).tolist()
        (S3 x C2, 12, [0, 3])
        >>> group.lift(VectorAction.rows("S3"), 0)
        VectorAction(S3 x C2 on R^3: rows)
    """

    def __init__(self, groups: Sequence[Group | str]) -> None:
        factors: list[FiniteGroup] = []
        for group in map(parse_group, groups):
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

    def lift(self, action: VectorAction, index: int) -> VectorAction:
        """The action of the whole product in which only factor ``index`` moves anything, as ``action`` says.

        Raises:
            ValueError: ``action`` is not one of that factor.
        """
        if action.group != self.factors[index]:
            raise ValueError(f"expected an action of factor {index}, {self.factors[index]}, got {action}")
        elements = self.project(self.elements(), index)
        lifted: dict[Any, MatrixRepresentation] = {}
        for field in action.fields:
            if field not in lifted:
                lifted[field] = MatrixRepresentation(self, field.matrices(elements), name=field.name)
        return VectorAction([lifted[field] for field in action.fields])
