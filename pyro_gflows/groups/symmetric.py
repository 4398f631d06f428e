"""SymmetricGroup: all permutations of n things."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup
from pyro_gflows.numerics.constants import rows_at
from pyro_gflows.serialization.registry import registered

__all__ = ["SymmetricGroup"]

_LARGEST = 6  # 720 elements; a representation of S7 by one matrix for each element would hold 5040 of them


@registered
class SymmetricGroup(EnumerableGroup):
    """The symmetric group S_n of all permutations of n things.

    It is the symmetry of a model whose components can be relabeled. The n! elements are numbered in lexicographic
    order; permutation p sends thing j to place p[j].

    Args:
        n: The number of things, at most 6 (representations hold a matrix for each of the n! elements).

    Raises:
        ValueError: ``n`` is not in 1..6.

    Example:
        >>> group = SymmetricGroup(3)
        >>> group, group.order, group.permutations()[3].tolist()
        (S3, 6, [1, 2, 0])
    """

    def __init__(self, n: int) -> None:
        if not 1 <= n <= _LARGEST:
            raise ValueError(
                f"expected n in 1..{_LARGEST} for a symmetric group, got {n}; for more things give the permutations "
                "that matter to VectorAction.from_generators"
            )
        self.n = n
        self.name, self.order = f"S{n}", math.factorial(n)

    def permutations(self) -> Tensor:
        """The place to which each element sends each thing, int64, shape ``(n!, n)``."""
        return torch.tensor(list(itertools.permutations(range(self.n))))

    def _permutations_of(self, elements: Tensor) -> Tensor:
        return rows_at(self._constant("permutations", elements.device, self.permutations), elements)

    def _codes(self, permutations: Tensor) -> Tensor:
        """Integers in the order of the permutations, made from the entries of a permutation as digits."""
        return (permutations * self.n ** torch.arange(self.n - 1, -1, -1, device=permutations.device)).sum(-1)

    def _elements_of(self, permutations: Tensor) -> Tensor:
        known = self._constant("codes", permutations.device, lambda: self._codes(self.permutations()))
        return torch.searchsorted(known, self._codes(permutations))

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        outer, inner = torch.broadcast_tensors(self._permutations_of(first), self._permutations_of(second))
        return self._elements_of(outer.gather(-1, inner))  # (g h)(j) = g(h(j))

    def inverse(self, elements: Tensor) -> Tensor:
        return self._elements_of(self._permutations_of(elements).argsort(-1))

    def generators(self) -> Tensor:
        swap, cycle = [1, 0, *range(2, self.n)], [*range(1, self.n), 0]
        chosen = [] if self.n == 1 else [swap] if self.n == 2 else [swap, cycle]
        return self._elements_of(torch.tensor(chosen, dtype=torch.int64).reshape(-1, self.n))
