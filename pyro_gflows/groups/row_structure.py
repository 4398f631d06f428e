"""RowStructure: which rows a group permutes, whether their signs change, and which group acts on the features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import Group
from pyro_gflows.groups.finite import CyclicGroup
from pyro_gflows.groups.monomial import MonomialGroup, whole_number
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.signed_permutations import SignedPermutationGroup
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.numerics.constants import made_once
from pyro_gflows.serialization.registry import registered

__all__ = ["RowStructure"]


@registered
class RowStructure:
    """The group that permutes rows in blocks, and with them a group that acts on the features of every row alike.

    An element consists of a permutation of the rows of each block, of a sign for each row if the rows are signed, and
    of an element of the group H of the features.

    Args:
        sizes: The number of rows of each block. Rows of different blocks are never exchanged.
        signed: Whether the group also changes the sign of single rows.
        inner: The group H; by default the trivial group.

    Raises:
        TypeError: A number of rows is not an int.
        ValueError: There is no block, or a block has no row.

    Example:
        >>> RowStructure((3, 2)).group, RowStructure((4,), signed=True).group.order
        (S3 x S2, 384)
    """

    def __init__(self, sizes: Sequence[int], *, signed: bool = False, inner: Group | None = None) -> None:
        if not sizes or min(whole_number(size, "rows of each block") for size in sizes) < 1:
            raise ValueError(f"expected blocks of at least one row each, got {list(sizes)}")
        self.sizes, self.signed = tuple(sizes), signed
        self.inner = CyclicGroup(1) if inner is None else inner
        kind = SignedPermutationGroup if signed else SymmetricGroup
        self.block_groups: tuple[MonomialGroup, ...] = tuple(kind(size) for size in self.sizes)

    @property
    def has_inner(self) -> bool:
        """Whether H has more than one element."""
        return self.inner.order != 1

    @made_once
    def group(self) -> Group:
        """The whole group: the group of each block and H, where it is not trivial, in this order."""
        factors: list[Group] = [*self.block_groups, *([self.inner] if self.has_inner else [])]
        return factors[0] if len(factors) == 1 else ProductGroup(factors)

    def _factor(self, elements: Tensor, index: int) -> Tensor:
        return self.group.project(elements, index) if isinstance(self.group, ProductGroup) else elements

    def permutations(self, elements: Tensor, blocks: Sequence[int]) -> Tensor:
        """The place to which each row of some blocks goes, counted through these blocks, shape ``batch + (rows,)``.

        Args:
            elements: Group elements.
            blocks: The indices of the blocks, whose rows lie one after the other.

        Example:
            >>> structure = RowStructure((2, 2))
            >>> structure.permutations(structure.group.generators(), [0, 1]).tolist()
            [[1, 0, 2, 3], [0, 1, 3, 2]]
        """
        starts = itertools.accumulate((self.sizes[block] for block in blocks), initial=0)
        parts = [
            self.block_groups[block].permutations_of(self._factor(elements, block)) + start
            for block, start in zip(blocks, starts, strict=False)
        ]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def signs(self, elements: Tensor, blocks: Sequence[int]) -> Tensor:
        """The sign with which each row of some blocks is multiplied, shape ``batch + (rows,)``.

        Args:
            elements: Group elements.
            blocks: The indices of the blocks.
        """
        parts = [self.block_groups[block].signs_of(self._factor(elements, block)) for block in blocks]
        return parts[0] if len(parts) == 1 else torch.cat(parts, -1)

    def inner_elements(self, elements: Tensor) -> Tensor:
        """The element of H of each element.

        Args:
            elements: Group elements.
        """
        if self.has_inner:
            return self._factor(elements, len(self.sizes))
        return torch.zeros(self.group.batch_shape(elements), dtype=torch.int64, device=elements.device)

    def elements_of(
        self, permutations: Sequence[Tensor], signs: Sequence[Tensor] | None = None, inner: Tensor | None = None
    ) -> Tensor:
        """The elements with these permutations and signs of each block and this element of H, by default the identity.

        Args:
            permutations: For each block the place to which each row goes, shape ``batch + (rows,)``.
            signs: For each block the sign of each row, of the same shape; by default 1.
            inner: Elements of H, by default the identity.

        Example:
            >>> structure = RowStructure((3,))
            >>> structure.elements_of([torch.tensor([1, 0, 2])])
            tensor(2)
        """
        if signs is None:
            signs = [torch.ones_like(permutation) for permutation in permutations]
        parts = [
            group.elements_of(permutations=permutation, signs=sign)
            for group, permutation, sign in zip(self.block_groups, permutations, signs, strict=True)
        ]
        if self.has_inner:
            identity = self.inner.identity().to(permutations[0].device) if inner is None else inner
            batch = permutations[0].shape[:-1]
            parts.append(identity.expand(*batch, *self.inner.element_shape))
        return self.group.join(parts) if isinstance(self.group, ProductGroup) else parts[0]

    def _key(self) -> Any:
        return (self.sizes, self.signed, self.inner)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RowStructure) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return f"RowStructure({self.group} on {sum(self.sizes)} rows)"
