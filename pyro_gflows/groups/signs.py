"""SignGroup: n sign flips that are independent of each other."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup
from pyro_gflows.groups.monomial import MonomialGroup, random_signs, whole_number
from pyro_gflows.serialization.registry import registered

__all__ = ["SignGroup", "bits_of_signs", "signs_of_bits"]

_LARGEST = 10  # 1,024 elements


@registered
class SignGroup(MonomialGroup):
    """The group C2^n of n independent sign flips, for any n.

    It is the symmetry of a model in which each of n things can change its sign without a change of the density, such
    as the factors of a factor model together with their loadings.

    For n up to 10 it is an :class:`~pyro_gflows.groups.EnumerableGroup`, whose 2^n elements are numbered as those of
    the product of n groups C2: the last sign counts fastest. For larger n an element consists of the n signs
    themselves, 1 or -1, int64 of shape ``(..., n)``, and nothing of the size of the group is computed.

    Args:
        n: The number of signs.

    Raises:
        ValueError: ``n`` is not positive.

    Example:
        >>> group = SignGroup(2)
        >>> group, group.order, group.signs_of(group.elements()).tolist()
        (C2^2, 4, [[1, 1], [1, -1], [-1, 1], [-1, -1]])
        >>> SignGroup(20), SignGroup(20).order, SignGroup(20).sample((5,)).shape
        (C2^20, 1048576, torch.Size([5, 20]))
    """

    def __new__(cls, n: int) -> SignGroup:
        return super().__new__(_ListedSignGroup if cls is SignGroup and whole_number(n) <= _LARGEST else cls)

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.name, self.order = f"C2^{n}", 2**n

    def permutations_of(self, elements: Tensor) -> Tensor:
        signs = self.signs_of(elements)
        return torch.arange(self.n, device=signs.device).expand_as(signs)

    def signs_of(self, elements: Tensor) -> Tensor:
        return elements

    def elements_of(self, *, permutations: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
        return self._parts(permutations, signs)[1]

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        return first * second

    def inverse(self, elements: Tensor) -> Tensor:
        return elements  # every element is its own inverse

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        return random_signs(self.n, shape, generator)

    def generators(self) -> Tensor:
        return self.elements_of(signs=1 - 2 * torch.eye(self.n, dtype=torch.int64))

    def _order_formula(self) -> str:
        return f"2^{self.n}"


class _ListedSignGroup(EnumerableGroup, SignGroup):
    """At most ten sign flips, by their indices, whose binary digits say which signs are -1."""

    described_as = SignGroup

    def signs_of(self, elements: Tensor) -> Tensor:
        return signs_of_bits(elements, self.n)

    def elements_of(self, *, permutations: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
        return bits_of_signs(self._parts(permutations, signs)[1])

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        return first ^ second


def signs_of_bits(bits: Tensor, n: int) -> Tensor:
    """The n signs that the binary digits of an integer say: -1 for the digit 1, the highest digit first.

    Args:
        bits: Integers in 0, ..., 2^n - 1.
        n: The number of signs.

    Example:
        >>> signs_of_bits(torch.tensor(1), 3).tolist()
        [1, 1, -1]
    """
    return 1 - 2 * (bits[..., None] >> torch.arange(n - 1, -1, -1, device=bits.device) & 1)


def bits_of_signs(signs: Tensor) -> Tensor:
    """The integers whose binary digits say these signs, the inverse of :func:`signs_of_bits`.

    Args:
        signs: Signs 1 or -1, int64, shape ``batch + (n,)``.

    Example:
        >>> bits_of_signs(torch.tensor([1, 1, -1])).tolist()
        1
    """
    n = signs.shape[-1]
    return ((1 - signs) // 2 << torch.arange(n - 1, -1, -1, device=signs.device)).sum(-1)
