"""The elements of a group that take a point to the nearest of its images."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.groups.monomial import MonomialGroup
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.groups.symmetric import SymmetricGroup

__all__ = ["near_elements"]

_LISTED_UP_TO = 4096


def near_elements(group: Group) -> Tensor:
    """All elements of a small group; of a large one, those that exchange two rows or change the signs of one or two.

    Other elements are products of these, and take a point farther away. The identity is there for a small group only.

    Args:
        group: A finite group.

    Raises:
        ValueError: The group has many elements, and is not made of permutations and signs.

    Example:
        >>> from pyro_gflows.groups import SignGroup, SymmetricGroup
        >>> near_elements(SymmetricGroup(20)).shape, len(near_elements(SignGroup(12)))
        (torch.Size([190, 20]), 12)
    """
    if isinstance(group, EnumerableGroup) and group.order <= _LISTED_UP_TO:
        return group.elements()
    if isinstance(group, ProductGroup):
        return torch.cat([_embedded(group, index) for index in range(len(group.factors))])
    if not isinstance(group, MonomialGroup):
        raise ValueError(f"expected a small group, or permutations and signs, got {group}")
    flips = 1 - 2 * torch.eye(group.n, dtype=torch.int64)
    if isinstance(group, SignGroup):
        return group.elements_of(signs=flips)
    first, second = torch.triu_indices(group.n, group.n, 1)
    exchanges = torch.arange(group.n).repeat(len(first), 1)
    pairs = torch.arange(len(first))
    exchanges[pairs, first], exchanges[pairs, second] = second, first
    if isinstance(group, SymmetricGroup):
        return group.elements_of(permutations=exchanges)
    exchanged = [
        group.elements_of(permutations=exchanges, signs=signs) for signs in (None, flips[first] * flips[second])
    ]
    return torch.cat([*exchanged, group.elements_of(signs=flips)])


def _embedded(group: ProductGroup, index: int) -> Tensor:
    own = near_elements(group.factors[index])
    batch = group.factors[index].batch_shape(own)
    identities = [factor.identity().expand(batch + factor.element_shape) for factor in group.factors]
    return group.join([own if other == index else identity for other, identity in enumerate(identities)])
