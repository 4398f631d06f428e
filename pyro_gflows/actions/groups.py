"""Finite groups: a multiplication table with a name, and the cyclic and dihedral groups in the plane."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.constants import as_constants
from pyro_gflows.registry import registered

__all__ = ["CyclicGroup", "DihedralGroup", "FiniteGroup", "Group"]


class Group:
    """A group whose elements are tensors: int64 indices if it is finite, defining matrices if it is continuous.

    ``quadrature(band)`` returns elements and weights whose weighted sum is the exact Haar average of every function
    of degree at most ``band`` in the entries of the defining matrix; for a finite group that is all its elements.
    """

    name: str
    is_finite: bool

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        raise NotImplementedError

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        raise NotImplementedError

    def generators(self) -> Tensor:
        raise NotImplementedError

    def _key(self) -> Any:
        return (type(self).__name__, self.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Group) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def __repr__(self) -> str:
        return self.name

    def __str__(self) -> str:
        return self.name


@registered
class FiniteGroup(Group):
    r"""A finite group given by its multiplication table, :math:`g_i g_j = g_{\mathrm{table}[i][j]}`, :math:`g_0 = e`.

    Args:
        name: what ``repr`` shows.
        table: ``|G| x |G|`` indices.
        generators: indices of elements that generate the group.

    Raises:
        ValueError: the table is not a group's (no identity at index 0, or a row that is no permutation).

    Example:
        >>> z2 = FiniteGroup("Z2", [[0, 1], [1, 0]], [1])
        >>> z2.order
        2
    """

    is_finite = True

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
        self._table_bytes = self.table.numpy().tobytes()
        self.inverse = (self.table == 0).long().argmax(dim=1)

    def elements(self) -> Tensor:
        return torch.arange(self.order)

    def generators(self) -> Tensor:
        return self._generators

    def quadrature(self, band: int) -> tuple[Tensor, Tensor]:
        return self.elements(), torch.full((self.order,), 1.0 / self.order, dtype=torch.float64)

    def sample(self, shape: Sequence[int] = (), generator: torch.Generator | None = None) -> Tensor:
        return torch.randint(self.order, tuple(shape), generator=generator)

    def regular(self) -> Tensor:
        """Permutations of the regular representation: entry ``[g, h]`` says where g sends the h-th basis vector."""
        return self.table

    def coset_action(self, subgroup: Sequence[int]) -> Tensor:
        """Permutations of the left cosets ``g H`` (the quotient representation), shape ``(|G|, |G|/|H|)``."""
        members = torch.as_tensor(sorted(set(subgroup)), dtype=torch.int64)
        products = self.table[members][:, members]
        if len(members) == 0 or not torch.isin(products, members).all():
            raise ValueError(f"expected the indices of a subgroup of {self.name}, got {list(subgroup)}")
        label = self.table[:, members].min(dim=1).values
        representatives, coset = torch.unique(label, return_inverse=True)
        return coset[self.table[:, representatives]]

    def _key(self) -> Any:
        return self._table_bytes


class _Planar(FiniteGroup):
    """A finite group with a defining representation on the plane."""

    def plane(self) -> Tensor:
        """The defining 2x2 matrices, float64, shape ``(|G|, 2, 2)``."""
        raise NotImplementedError


@registered
class CyclicGroup(_Planar):
    """The n turns of the plane by multiples of 360/n degrees; element k turns by 360 k/n degrees.

    Example:
        >>> CyclicGroup(4).plane()[1].tolist()
        [[0.0, -1.0], [1.0, 0.0]]
    """

    def __init__(self, n: int) -> None:
        self.n = _positive(n)
        index = torch.arange(n)
        super().__init__(f"C{n}", (index[:, None] + index) % n, [1] if n > 1 else [])

    def plane(self) -> Tensor:
        return _rotations(self.n)


@registered
class DihedralGroup(_Planar):
    """The n turns of :class:`CyclicGroup` (elements 0..n-1), each also after the mirror y -> -y (elements n..2n-1).

    Example:
        >>> DihedralGroup(4).order
        8
    """

    def __init__(self, n: int) -> None:
        self.n = _positive(n)
        turn, flip = torch.arange(2 * n) % n, torch.arange(2 * n) // n
        sign = 1 - 2 * flip
        table = (turn[:, None] + sign[:, None] * turn) % n + n * ((flip[:, None] + flip) % 2)
        super().__init__(f"D{n}", table, [1, n] if n > 1 else [1])

    def plane(self) -> Tensor:
        rotations = _rotations(self.n)
        return torch.cat([rotations, rotations * torch.tensor([1.0, -1.0], dtype=torch.float64)])


def _positive(n: int) -> int:
    if n < 1:
        raise ValueError(f"expected a positive number of turns, got {n}")
    return n


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
