"""Stored events in files that are read a few rows at a time, and never as a whole."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from pyro_gflows.datasets.array_rows import dtype_of, rows_of_a_block, starts, tensor_of
from pyro_gflows.datasets.mapped import KEPT_BYTES, MappedRows
from pyro_gflows.datasets.share import Share

__all__ = ["FileRows", "Store"]

_MAPPED_FILES = 256  # a process may have a few hundred files open
_WINDOW = (2, 2**22)  # so many parts, and entries, at least, are kept where parts are decoded as a whole


class Store(Protocol):
    """Where stored events lie: parts one after the other, such as files, row groups or chunks.

    Attributes:
        path: The file or folder.
        kind: What it is, in words.
        lengths: The number of rows of each part.
        event_shape: The shape of one event.
        dtype: The dtype of the entries.
        is_mapped: Whether single rows of a part can be read, since it is mapped; otherwise it is decoded as a whole.
    """

    path: Path
    kind: str
    lengths: tuple[int, ...]
    event_shape: tuple[int, ...]
    dtype: np.dtype
    is_mapped: bool

    def read(self, part: int) -> np.ndarray:
        """Return the rows of a part, mapped or decoded.

        Args:
            part: The number of the part.
        """


class DecodedRows:
    """The rows of a part that was decoded as a whole.

    Args:
        array: The rows.
    """

    def __init__(self, array: np.ndarray) -> None:
        self.array = array

    def take(self, rows: np.ndarray) -> np.ndarray:
        return self.array[rows]

    def block(self, start: int, stop: int) -> np.ndarray:
        return self.array[start:stop]


class FileRows(Dataset[Tensor]):
    """The rows of a file or of a folder of files, as :func:`open_rows` returns them.

    Nothing is read before rows are asked for. The memory that it needs does not depend on the number of rows: of large
    arrays nothing stays in memory, and of parts that are decoded as a whole (the row groups of a
    Parquet file, the chunks of a Zarr array) only the last few are kept. Another process gets the path and not the
    contents. It is a torch ``Dataset`` as well, so that a ``DataLoader`` can read it.

    Args:
        store: Where the rows lie.

    Attributes:
        store: Where the rows lie.

    Example:
        >>> import tempfile
        >>> from pyro_gflows.datasets import open_rows
        >>> folder = Path(tempfile.mkdtemp())
        >>> np.save(folder / "a.npy", np.zeros((3, 2)))
        >>> np.save(folder / "b.npy", np.ones((2, 2)))
        >>> rows = open_rows(folder)
        >>> len(rows), rows.event_shape, rows.take(torch.tensor([4, 0])).tolist()
        (5, (2,), [[1.0, 1.0], [0.0, 0.0]])
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        self._ends = np.cumsum(store.lengths)
        self._parts: OrderedDict[int, MappedRows | DecodedRows] = OrderedDict()

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows and the shape of one event."""
        return (len(self), *self.event_shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one event."""
        return self.store.event_shape

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the events come."""
        return dtype_of(self.store.dtype)

    @property
    def window(self) -> int:
        """How many parts are kept at a time; rows are shuffled within so many where parts are decoded as a whole."""
        if self.store.is_mapped:
            return _MAPPED_FILES
        parts, entries = _WINDOW
        each = max(1, len(self) * math.prod(self.event_shape)) / len(self.store.lengths)
        return max(parts, round(entries / each))

    def __len__(self) -> int:
        return int(self._ends[-1])

    def take(self, rows: Tensor) -> Tensor:
        """Return the events of some rows.

        Args:
            rows: The indices of the rows.

        Raises:
            IndexError: If there is no such row.
        """
        index = rows.cpu().numpy()
        if len(index) and (index.min() < 0 or index.max() >= len(self)):
            raise IndexError(f"expected rows from 0 to {len(self) - 1} of {self}, got {index.min()} to {index.max()}")
        parts = np.searchsorted(self._ends, index, side="right")
        sorted_by_part = np.argsort(parts, kind="stable")
        needed, first = np.unique(parts[sorted_by_part], return_index=True)
        places = dict(zip(needed.tolist(), np.split(sorted_by_part, first[1:]), strict=True))
        taken = np.empty((len(index), *self.event_shape), self.store.dtype)
        for part in sorted(places, key=lambda part: part not in self._parts):  # those in memory first, while they are
            place = places[part]
            taken[place] = self._part(part).take(index[place] - self._start(part))
        return tensor_of(taken)

    def blocks(self, size: int | None = None, share: Share = Share()) -> Iterator[Tensor]:
        """Read all events in order, ``size`` rows at a time; of several processes each reads its share of the blocks.

        Args:
            size: The number of rows in a block.
            share: Which of several processes reads.
        """
        size = size or rows_of_a_block(self.event_shape)
        for start in starts(len(self), size, share):
            yield self._range(start, min(start + size, len(self)))

    def _range(self, start: int, stop: int) -> Tensor:
        block = np.empty((stop - start, *self.event_shape), self.store.dtype)
        part, filled = int(np.searchsorted(self._ends, start, side="right")), 0
        while filled < len(block):
            begin = start + filled - self._start(part)
            end = min(begin + len(block) - filled, self.store.lengths[part])
            if end > begin:
                block[filled : filled + end - begin] = self._part(part).block(begin, end)
            filled, part = filled + end - begin, part + 1
        return tensor_of(block)

    def __getitem__(self, row: int) -> Tensor:
        """Return one event."""
        return self.take(torch.tensor([row]))[0]

    def __getitems__(self, rows: list[int]) -> list[Tensor]:
        """Return several events, for a ``DataLoader``."""
        return list(self.take(torch.tensor(rows)))

    def _start(self, part: int) -> int:
        return int(self._ends[part]) - self.store.lengths[part]

    def _part(self, part: int) -> MappedRows | DecodedRows:
        """The rows of a part, which stay in memory or mapped until other parts take their place."""
        if part not in self._parts:
            while len(self._parts) >= self.window:
                self._parts.popitem(last=False)
            array = self.store.read(part)
            kept = len(self) * self.store.dtype.itemsize * math.prod(self.event_shape) <= KEPT_BYTES
            self._parts[part] = MappedRows(array, kept=kept) if self.store.is_mapped else DecodedRows(array)
        self._parts.move_to_end(part)
        return self._parts[part]

    def __getstate__(self) -> dict[str, Any]:
        return {"store": self.store}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["store"])  # type: ignore[misc]

    def __repr__(self) -> str:
        parts = len(self.store.lengths)
        split = "" if parts == 1 else f" in {parts} parts"
        dtype = str(self.dtype).removeprefix("torch.")
        return (
            f"{type(self).__name__}({str(self.store.path)!r}: {self.store.kind}, {len(self)} rows of {dtype} events of "
            f"shape {self.event_shape}{split})"
        )
