"""SignedPermutationGroup: all permutations of n things together with their sign flips."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup
from pyro_gflows.groups.monomial import (
    MonomialGroup,
    generating_permutations,
    random_permutations,
    random_signs,
    whole_number,
)
from pyro_gflows.groups.signs import bits_of_signs, signs_of_bits
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.serialization.registry import registered

__all__ = ["SignedPermutationGroup"]

_LARGEST = 4  # 384 elements


@registered
class SignedPermutationGroup(MonomialGroup):
    """The group of all permutations of n things together with all sign flips of them, for any n.

    It has n! 2^n elements and is called the hyperoctahedral group, since it is the symmetry of a cube in n dimensions.
    It is the symmetry of a layer of hidden units with an odd activation such as tanh: units can be permuted, and the
    weights into and out of a unit can change their signs together. An element sends thing j to place ``p[j]`` and
    multiplies it by ``s[j]``.

    For n up to 4 it is an :class:`~pyro_gflows.groups.EnumerableGroup`; the elements are numbered by the permutations
    in lexicographic order and then by the signs, of which the last counts fastest. For larger n an element is an int64
    tensor of shape ``(..., n)`` with the entries ``s[j] (p[j] + 1)``, and nothing of the size of the group is computed.

    Args:
        n: The number of things.

    Raises:
        ValueError: ``n`` is not positive.

    Example:
        >>> group = SignedPermutationGroup(20)
        >>> group, group.order == math.factorial(20) * 2**20
        (signed S20, True)
        >>> small = SignedPermutationGroup(2)
        >>> element = small.elements_of(permutations=torch.tensor([1, 0]), signs=torch.tensor([1, -1]))
        >>> small.order, element, small.signs_of(small.compose(element, element))
        (8, tensor(5), tensor([-1, -1]))
    """

    def __new__(cls, n: int) -> SignedPermutationGroup:
        listed = cls is SignedPermutationGroup and whole_number(n) <= _LARGEST
        return super().__new__(_ListedSignedPermutationGroup if listed else cls)

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.name, self.order = f"signed S{n}", math.factorial(n) * 2**n

    def permutations_of(self, elements: Tensor) -> Tensor:
        return elements.abs() - 1

    def signs_of(self, elements: Tensor) -> Tensor:
        return elements.sign()

    def elements_of(self, *, permutations: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
        places, signs = self._parts(permutations, signs)
        return signs * (places + 1)

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        permutations = random_permutations(self.n, shape, generator)
        return self.elements_of(permutations=permutations, signs=random_signs(self.n, shape, generator))

    def generators(self) -> Tensor:
        one_sign = torch.ones(1, self.n, dtype=torch.int64)
        one_sign[0, 0] = -1
        permutations = self.elements_of(permutations=generating_permutations(self.n))
        return torch.cat([permutations, self.elements_of(signs=one_sign)])

    def _order_formula(self) -> str:
        return f"{self.n}! 2^{self.n}"


class _ListedSignedPermutationGroup(EnumerableGroup, SignedPermutationGroup):
    """The signed permutations of at most four things, by their indices."""

    described_as = SignedPermutationGroup

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self._symmetric = SymmetricGroup(n)

    def permutations_of(self, elements: Tensor) -> Tensor:
        return self._symmetric.permutations_of(elements >> self.n)

    def signs_of(self, elements: Tensor) -> Tensor:
        return signs_of_bits(elements, self.n)

    def elements_of(self, *, permutations: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
        places, signs = self._parts(permutations, signs)
        return (self._symmetric.elements_of(permutations=places) << self.n) + bits_of_signs(signs)
