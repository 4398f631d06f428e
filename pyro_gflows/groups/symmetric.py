"""SymmetricGroup: all permutations of n things."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, require_enumerable
from pyro_gflows.groups.monomial import (
    MonomialGroup,
    generating_permutations,
    inverse_permutations,
    random_permutations,
    whole_number,
)
from pyro_gflows.numerics.constants import rows_at
from pyro_gflows.serialization.registry import registered

__all__ = ["SymmetricGroup"]

_LARGEST = 6  # 720 elements; a representation of S7 by one matrix for each element would hold 5040 of them


@registered
class SymmetricGroup(MonomialGroup):
    """The symmetric group S_n of all permutations of n things, for any n.

    It is the symmetry of a model whose components can be relabeled. Permutation p sends thing j to place ``p[j]``.

    For n up to 6 it is an :class:`~pyro_gflows.groups.EnumerableGroup`, whose n! elements are numbered in
    lexicographic order. For larger n an element is the permutation itself, int64 of shape ``(..., n)``, and nothing of
    the size of the group is computed.

    Args:
        n: The number of things.

    Raises:
        ValueError: ``n`` is not positive.

    Example:
        >>> group = SymmetricGroup(3)
        >>> group, group.order, group.permutations()[3].tolist()
        (S3, 6, [1, 2, 0])
        >>> large = SymmetricGroup(50)
        >>> large, large.order == math.factorial(50), large.sample((2,)).shape
        (S50, True, torch.Size([2, 50]))
    """

    def __new__(cls, n: int) -> SymmetricGroup:
        return super().__new__(_ListedSymmetricGroup if cls is SymmetricGroup and whole_number(n) <= _LARGEST else cls)

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.name, self.order = f"S{n}", math.factorial(n)

    def permutations(self) -> Tensor:
        """The place to which each element sends each thing, int64, shape ``(n!, n)``.

        Raises:
            ValueError: n is larger than 6.
        """
        require_enumerable(self, "the list of all permutations")
        return torch.tensor(list(itertools.permutations(range(self.n))))

    def permutations_of(self, elements: Tensor) -> Tensor:
        return elements

    def signs_of(self, elements: Tensor) -> Tensor:
        return torch.ones_like(self.permutations_of(elements))

    def elements_of(self, *, permutations: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
        return self._parts(permutations, signs)[0]

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        outer, inner = torch.broadcast_tensors(self.permutations_of(first), self.permutations_of(second))
        return self.elements_of(permutations=outer.gather(-1, inner))  # (g h)(j) = g(h(j))

    def inverse(self, elements: Tensor) -> Tensor:
        return self.elements_of(permutations=inverse_permutations(self.permutations_of(elements)))

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        return random_permutations(self.n, shape, generator)

    def generators(self) -> Tensor:
        return self.elements_of(permutations=generating_permutations(self.n))

    def _order_formula(self) -> str:
        return f"{self.n}!"


class _ListedSymmetricGroup(EnumerableGroup, SymmetricGroup):
    """The permutations of at most six things, by their indices."""

    described_as = SymmetricGroup

    def permutations_of(self, elements: Tensor) -> Tensor:
        return rows_at(self._constant("permutations", elements.device, self.permutations), elements)

    def elements_of(self, *, permutations: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
        places = self._parts(permutations, signs)[0]
        known = self._constant("codes", places.device, lambda: _codes(self.permutations()))
        return torch.searchsorted(known, _codes(places))


def _codes(permutations: Tensor) -> Tensor:
    """Integers in the order of the permutations, made from the entries of a permutation as digits."""
    n = permutations.shape[-1]
    return (permutations * n ** torch.arange(n - 1, -1, -1, device=permutations.device)).sum(-1)
