"""Random orders of stored rows, any part of which can be asked for."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.array_rows import random_order
from pyro_gflows.datasets.file_rows import FileRows
from pyro_gflows.datasets.rows import Rows, in_memory

__all__ = ["DrawnOrder", "KeyedOrder", "Order", "WindowedOrder", "is_drawn", "new_order"]

_DRAWN_ROWS = 2**22  # a permutation of more rows of a file is never in memory as a whole
_ROUNDS = 8
_AHEAD = 2**14  # rows of an order that are computed together, since a call for few takes as long


class Order(Protocol):
    """A random order of the rows 0 .. n - 1."""

    def __len__(self) -> int: ...

    def rows(self, start: int, stop: int) -> Tensor:
        """Return the rows in the places ``start`` to ``stop`` of the order.

        Args:
            start: The first place.
            stop: The place after the last one.
        """


class DrawnOrder:
    """A permutation that is drawn as a whole: 4 bytes a row.

    Args:
        order: The permutation.
    """

    def __init__(self, order: Tensor) -> None:
        self.order = order

    def __len__(self) -> int:
        return len(self.order)

    def rows(self, start: int, stop: int) -> Tensor:
        return self.order[start:stop].long()


class KeyedOrder:
    r"""A pseudo-random permutation that is computed where it is asked for, so that it needs little memory.

    A Feistel network maps pairs (a, b) of h bits to (b, a XOR F(b)) in several rounds, which is a bijection of the
    :math:`2^{2h}` numbers whatever F is; F mixes b with a key of the round. Numbers from n on are mapped again until
    they fall below n (cycle walking), which leaves a bijection of 0 .. n - 1; fewer than four calls are needed on
    average.

    Args:
        count: The number n of rows.
        key: The key, which stands for the whole order.

    Example:
        >>> order = KeyedOrder(5, key=7)
        >>> sorted(order.rows(0, 5).tolist())
        [0, 1, 2, 3, 4]
    """

    def __init__(self, count: int, key: int) -> None:
        self.count = count
        self._bits = np.uint64(max(1, -(-(count - 1).bit_length() // 2)))
        self._mask = (np.uint64(1) << self._bits) - np.uint64(1)
        self._first, self._known = 0, torch.empty(0, dtype=torch.long)
        self._keys = _mixed(np.arange(1, _ROUNDS + 1, dtype=np.uint64) + _mixed(np.array([key], dtype=np.uint64)))

    def __len__(self) -> int:
        return self.count

    def rows(self, start: int, stop: int) -> Tensor:
        stop = min(stop, self.count)
        if not self._first <= start <= stop <= self._first + len(self._known):
            self._known = self._computed(start, min(self.count, max(stop, start + _AHEAD)))
            self._first = start
        return self._known[start - self._first : stop - self._first]

    def _computed(self, start: int, stop: int) -> Tensor:
        found = self._mapped(np.arange(start, stop, dtype=np.uint64))
        while True:
            outside = np.flatnonzero(found >= np.uint64(self.count))
            if not len(outside):
                return torch.from_numpy(found.astype(np.int64))
            found[outside] = self._mapped(found[outside])

    def _mapped(self, numbers: np.ndarray) -> np.ndarray:
        left, right = numbers >> self._bits, numbers & self._mask
        for key in self._keys:
            left, right = right, left ^ (_mixed(right ^ key) & self._mask)
        return (left << self._bits) | right


class WindowedOrder:
    """A random order in which parts that are decoded as a whole, such as row groups or chunks, are read once.

    The parts come in random order, and the rows are shuffled within windows of several parts. Only two windows are in
    memory at a time, each as a permutation of its rows.

    Args:
        lengths: The numbers of rows of the parts.
        window: The number of parts in a window.
        key: The key, which stands for the whole order.

    Example:
        >>> order = WindowedOrder([2, 2, 2], window=1, key=7)
        >>> [sorted(order.rows(start, start + 2).tolist()) for start in (0, 2, 4)]
        [[0, 1], [2, 3], [4, 5]]
    """

    def __init__(self, lengths: tuple[int, ...] | list[int], *, window: int, key: int) -> None:
        sizes = np.asarray(lengths)
        generator = torch.Generator().manual_seed(key)
        parts = torch.randperm(len(sizes), generator=generator).numpy()
        self._windows = [parts[first : first + window] for first in range(0, len(parts), window)]
        self._starts = np.cumsum(sizes) - sizes
        self._sizes = sizes
        self._ends = np.cumsum([int(sizes[part].sum()) for part in self._windows])
        self._key = key
        self._drawn: dict[int, Tensor] = {}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def rows(self, start: int, stop: int) -> Tensor:
        found = []
        window = int(np.searchsorted(self._ends, start, side="right"))
        while start < min(stop, len(self)):
            end = int(self._ends[window])
            order = self._order_of(window)
            begin = start - (end - len(order))
            some = order[begin : begin + stop - start]
            found.append(some)
            start, window = start + len(some), window + 1
        return torch.cat(found) if found else torch.empty(0, dtype=torch.long)

    def _order_of(self, window: int) -> Tensor:
        if window not in self._drawn:
            parts = self._windows[window]
            rows = np.concatenate([np.arange(self._sizes[part]) + self._starts[part] for part in parts])
            seed = int(_mixed(np.array([self._key + window + 1], dtype=np.uint64))[0] >> np.uint64(1))
            generator = torch.Generator().manual_seed(seed)
            order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]
            self._drawn = {**dict(list(self._drawn.items())[-1:]), window: order}
        return self._drawn[window]


def is_drawn(rows: Rows) -> bool:
    """Whether an order of these rows is drawn as a whole: they are in memory themselves, or not too many.

    Args:
        rows: The rows.
    """
    if isinstance(rows, FileRows) and not rows.store.is_mapped:
        return False
    return in_memory(rows) or len(rows) <= _DRAWN_ROWS


def new_order(rows: Rows, generator: torch.Generator, *, drawn: bool | None = None) -> Order:
    """Return a new random order of stored rows, in memory that does not grow with a file.

    Args:
        rows: The rows.
        generator: The random generator.
        drawn: Whether the order is drawn as a whole, by default as :func:`is_drawn` says.
    """
    if is_drawn(rows) if drawn is None else drawn:
        return DrawnOrder(random_order(len(rows), generator))
    key = int(torch.randint(2**62, (), generator=generator))
    if isinstance(rows, FileRows) and not rows.store.is_mapped:
        return WindowedOrder(rows.store.lengths, window=rows.window, key=key)
    return KeyedOrder(len(rows), key)


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """A bijection of 64-bit integers whose values look random (the finalizer of splitmix64)."""
    with np.errstate(over="ignore"):
        numbers = numbers + np.uint64(0x9E3779B97F4A7C15)
        numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return numbers ^ (numbers >> np.uint64(31))
