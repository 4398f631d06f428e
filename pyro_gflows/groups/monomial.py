"""MonomialGroup: groups of permutations of n things, of their signs, or of both."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group, require_enumerable

__all__ = [
    "MonomialGroup",
    "generating_permutations",
    "inverse_permutations",
    "random_permutations",
    "random_signs",
    "whole_number",
]


class MonomialGroup(Group):
    r"""A group that permutes n things, or changes their signs, or both; n may be of any size.

    These are the symmetries of a model that consists of like parts: the components of a mixture can be relabeled, a
    factor can change its sign together with its loadings, and a hidden unit with an odd activation can do both. Every
    element sends thing j to place ``p[j]`` and multiplies it by the sign ``s[j]``, so that an element is known by a
    permutation p and n signs s. The matrices of such maps have one entry 1 or -1 in each row and column (monomial
    matrices). Nothing of the size of the group is ever computed, which for n = 20 can be 20! 2^20 = 2.6e24 elements.

    A small group of this kind is an :class:`~pyro_gflows.groups.EnumerableGroup` too, whose elements are indices;
    the elements of a large one are int64 tensors of shape ``(..., n)``. What reads elements by
    :meth:`permutations_of` and :meth:`signs_of`, and makes them by :meth:`elements_of`, works with both.

    Attributes:
        n: The number of things.

    Example:
        >>> from pyro_gflows.groups import SignedPermutationGroup
        >>> group = SignedPermutationGroup(20)
        >>> element = group.sample((5,))
        >>> isinstance(group, MonomialGroup), group.permutations_of(element).shape, group.signs_of(element).shape
        (True, torch.Size([5, 20]), torch.Size([5, 20]))
    """

    n: int
    element_dtype = torch.int64

    def __init__(self, n: int) -> None:
        if whole_number(n) < 1:
            raise ValueError(f"expected a positive number n of things to permute or to change the sign of, got {n}")
        self.n = n
        if not isinstance(self, EnumerableGroup):
            self.element_shape = torch.Size([n])

    @abstractmethod
    def permutations_of(self, elements: Tensor) -> Tensor:
        """The place to which each element sends each thing, int64.

        Args:
            elements: Group elements.

        Returns:
            Shape ``batch_shape + (n,)``.
        """

    @abstractmethod
    def signs_of(self, elements: Tensor) -> Tensor:
        """What each element multiplies each thing by, 1 or -1, int64; thing j has sign j, wherever it is sent.

        Args:
            elements: Group elements.

        Returns:
            Shape ``batch_shape + (n,)``.
        """

    @abstractmethod
    def elements_of(self, *, permutations: Tensor | None = None, signs: Tensor | None = None) -> Tensor:
        """The elements with these permutations and signs, which is the inverse of reading them.

        The values are not checked, since elements are made in inner loops: where the group has no signs, or permutes
        nothing, the values of that argument are not read.

        Args:
            permutations: The place of each thing, shape ``batch_shape + (n,)``; by default every thing stays where it
                is.
            signs: The sign of each thing, whose batch shape broadcasts with that of the permutations; 1 by default.

        Raises:
            ValueError: The last dimension is not n.
        """

    def _parts(self, permutations: Tensor | None, signs: Tensor | None) -> tuple[Tensor, Tensor]:
        """The permutations and the signs of some elements, of one shape."""
        known = signs if permutations is None else permutations
        device = None if known is None else known.device
        if permutations is None:
            permutations = torch.arange(self.n, device=device)
        if signs is None:
            signs = torch.ones(self.n, dtype=torch.int64, device=device)
        for what, part in (("permutations", permutations), ("signs", signs)):
            if part.ndim == 0 or part.shape[-1] != self.n:
                raise ValueError(f"expected {what} of shape (..., {self.n}) for {self}, got {tuple(part.shape)}")
        both = torch.broadcast_tensors(permutations.to(torch.int64), signs.to(torch.int64))
        return both[0], both[1]

    def identity(self) -> Tensor:
        return self.elements_of()

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        inner = self.permutations_of(second)
        outer, inner = torch.broadcast_tensors(self.permutations_of(first), inner)
        signs = self.signs_of(first).expand_as(inner).gather(-1, inner) * self.signs_of(second)
        return self.elements_of(permutations=outer.gather(-1, inner), signs=signs)  # (g h)(j) = g(h(j))

    def inverse(self, elements: Tensor) -> Tensor:
        inverse = inverse_permutations(self.permutations_of(elements))
        return self.elements_of(permutations=inverse, signs=self.signs_of(elements).gather(-1, inverse))

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        group = require_enumerable(self, "an exact average over all elements")
        return group.quadrature(band)

    def __getnewargs__(self) -> tuple[Any, ...]:
        return (self.n,)  # __new__ needs it, also where a group is unpickled or copied


def whole_number(n: Any, what: str = "things") -> int:
    """The number of things itself, if it is an int.

    Args:
        n: Any object.
        what: The things, for the error message.

    Raises:
        TypeError: The object is not an int.

    Example:
        >>> whole_number(20)
        20
    """
    if not isinstance(n, int) or isinstance(n, bool):
        raise TypeError(f"expected the number of {what} as an int, got {n!r}")
    return n


def inverse_permutations(permutations: Tensor) -> Tensor:
    """The inverses of permutations: entry ``p[j]`` of the inverse is j.

    Args:
        permutations: Permutations p, int64, shape ``batch + (n,)``.

    Example:
        >>> inverse_permutations(torch.tensor([1, 2, 0])).tolist()
        [2, 0, 1]
    """
    things = torch.arange(permutations.shape[-1], device=permutations.device).expand_as(permutations)
    return torch.zeros_like(permutations).scatter(-1, permutations, things)


def generating_permutations(n: int) -> Tensor:
    """One or two permutations whose products are all permutations of n things; none for n = 1.

    Args:
        n: The number of things.

    Example:
        >>> generating_permutations(4).tolist()  # a swap and a cycle
        [[1, 0, 2, 3], [1, 2, 3, 0]]
    """
    swap, cycle = [1, 0, *range(2, n)], [*range(1, n), 0]
    chosen = [] if n == 1 else [swap] if n == 2 else [swap, cycle]
    return torch.tensor(chosen, dtype=torch.int64).reshape(-1, n)


def random_permutations(n: int, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Uniformly distributed permutations, int64, shape ``shape + (n,)``.

    Args:
        n: The number of things.
        shape: The batch shape.
        generator: The source of randomness, or None for torch's global one.

    Example:
        >>> random_permutations(5, (2,), None).sort(-1).values.tolist()
        [[0, 1, 2, 3, 4], [0, 1, 2, 3, 4]]
    """
    return torch.rand(*shape, n, generator=generator, dtype=torch.float64).argsort(-1)


def random_signs(n: int, shape: Sequence[int], generator: torch.Generator | None) -> Tensor:
    """Independent fair signs 1 and -1, int64, shape ``shape + (n,)``.

    Args:
        n: The number of signs.
        shape: The batch shape.
        generator: The source of randomness, or None for torch's global one.

    Example:
        >>> random_signs(5, (2,), None).abs().tolist()
        [[1, 1, 1, 1, 1], [1, 1, 1, 1, 1]]
    """
    return 1 - 2 * torch.randint(2, (*shape, n), generator=generator)
