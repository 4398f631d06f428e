"""The symmetric groups: all permutations of n things."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from pyro_gflows.actions.groups import FiniteGroup
from pyro_gflows.registry import registered

__all__ = ["SymmetricGroup"]

_LARGEST = 6  # 720 elements; the table of S7 would hold 25 million entries


@registered
class SymmetricGroup(FiniteGroup):
    """All n! permutations of n things, in lexicographic order; permutation p sends thing j to place p[j].

    Args:
        n: how many things, at most 6 (the group is a multiplication table).

    Raises:
        ValueError: n is not in 1..6.

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
        permutations = torch.tensor(list(itertools.permutations(range(n))))
        codes = permutations @ n ** torch.arange(n - 1, -1, -1)  # sorted, since the order is lexicographic
        products = permutations[:, permutations]  # (g h)(j) = g(h(j))
        table = torch.searchsorted(codes, products @ n ** torch.arange(n - 1, -1, -1))
        swap, cycle = [1, 0, *range(2, n)], [*range(1, n), 0]
        generators = [] if n == 1 else [swap] if n == 2 else [swap, cycle]
        known = permutations.tolist()
        super().__init__(f"S{n}", table, [known.index(generator) for generator in generators])

    def permutations(self) -> Tensor:
        """Where each element sends each thing, int64, shape ``(n!, n)``."""
        return torch.tensor(list(itertools.permutations(range(self.n))))
