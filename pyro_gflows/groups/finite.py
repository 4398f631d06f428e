"""Finite groups by their multiplication tables, and the cyclic and dihedral groups of the plane."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group, require_enumerable
from pyro_gflows.numerics.constants import as_constants, rows_at
from pyro_gflows.serialization.registry import registered

__all__ = [
    "CyclicGroup",
    "DihedralGroup",
    "EnumerableGroup",
    "FiniteGroup",
    "Group",
    "PlanarGroup",
    "require_enumerable",
]


@registered
class FiniteGroup(EnumerableGroup):
    r"""A finite group given by its multiplication table, :math:`g_i g_j = g_{\mathrm{table}[i][j]}`, :math:`g_0 = e`.

    Args:
        name: what ``repr`` shows.
        table: ``|G| x |G|`` indices.
        generators: indices of elements that generate the group.

    Raises:
        ValueError: the table is not a group's (no identity at index 0, or a row that is no permutation).

    Example:
        >>> z2 = FiniteGroup("Z2", [[0, 1], [1, 0]], [1])
        >>> z2.order, z2.compose(torch.tensor(1), torch.tensor([0, 1])).tolist()
        (2, [1, 0])
    """

    def __init__(self, name: str, table: Sequence[Sequence[int]] | Tensor, generators: Sequence[int]) -> None:
        self.name = name
        self.table = torch.as_tensor(table, dtype=torch.int64)
        self.order = len(self.table)
        index = torch.arange(self.order)
        if not (torch.equal(self.table[0], index) and torch.equal(self.table[:, 0], index)):
            raise ValueError(f"group {name!r}: element 0 must be the identity of the multiplication table")
        if not torch.equal(self.table.sort(dim=1).values, index.expand(self.order, -1)):
            raise ValueError(f"group {name!r}: every row of the multiplication table must be a permutation")
        self._generators = torch.as_tensor(list(generators), dtype=torch.int64)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        return rows_at(self._constant("table", first.device, lambda: self.table.flatten()), self.order * first + second)

    def inverse(self, elements: Tensor) -> Tensor:
        table = self._constant("inverse", elements.device, lambda: (self.table == 0).long().argmax(dim=1))
        return rows_at(table, elements)

    def generators(self) -> Tensor:
        return self._generators

    def _key(self) -> Any:
        return self._table_bytes

    @staticmethod
    def _derived() -> tuple[str, ...]:
        return ("_table_bytes", "_constants")


class PlanarGroup(EnumerableGroup):
    """A finite group with a defining representation on the plane."""

    def __init__(self, n: int) -> None:
        if n < 1:
            raise ValueError(f"expected a positive number of turns, got {n}")
        self.n = n

    @abstractmethod
    def plane(self) -> Tensor:
        """The defining 2x2 matrices, float64, shape ``(|G|, 2, 2)``."""


@registered
class CyclicGroup(PlanarGroup):
    """The n turns of the plane by multiples of 360/n degrees; element k turns by 360 k/n degrees.

    Example:
        >>> CyclicGroup(4).plane()[1].tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.name, self.order = f"C{n}", n

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        return (first + second) % self.n

    def inverse(self, elements: Tensor) -> Tensor:
        return -elements % self.n

    def generators(self) -> Tensor:
        return torch.ones(min(self.n - 1, 1), dtype=torch.int64)

    def plane(self) -> Tensor:
        return _rotations(self.n)


@registered
class DihedralGroup(PlanarGroup):
    """The n turns of :class:`CyclicGroup` (elements 0..n-1), each also after the mirror y -> -y (elements n..2n-1).

    Example:
        >>> DihedralGroup(4).order
        8
    """

    def __init__(self, n: int) -> None:
        super().__init__(n)
        self.name, self.order = f"D{n}", 2 * n

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        turn, flip = first % self.n, first // self.n
        other, flip_other = second % self.n, second // self.n
        return (turn + (1 - 2 * flip) * other) % self.n + self.n * ((flip + flip_other) % 2)

    def inverse(self, elements: Tensor) -> Tensor:
        return torch.where(elements < self.n, -elements % self.n, elements)  # a reflection undoes itself

    def generators(self) -> Tensor:
        return torch.tensor([1, self.n] if self.n > 1 else [1])

    def plane(self) -> Tensor:
        rotations = _rotations(self.n)
        return torch.cat([rotations, rotations * torch.tensor([1.0, -1.0], dtype=torch.float64)])


@functools.cache
@as_constants()
def _rotations(n: int) -> Tensor:
    rows = []
    for k in range(n):
        angle = 2 * math.pi * k / n
        c, s = math.cos(angle), math.sin(angle)
        if 4 * k % n == 0:  # quarter turns are exact: the pixel grid and permutations depend on it
            c, s = float(round(c)), float(round(s))
        rows.append([[c, -s], [s, c]])
    return torch.tensor(rows, dtype=torch.float64)
