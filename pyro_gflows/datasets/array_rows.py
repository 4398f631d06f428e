"""The rows of tensors, arrays and torch datasets, which are read a few at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset, default_collate

from pyro_gflows.datasets.mapped import KEPT_BYTES, MappedRows, Place, memory_map_of
from pyro_gflows.datasets.share import Share

__all__ = [
    "ArrayRows",
    "DatasetRows",
    "TensorRows",
    "dtype_of",
    "event_part",
    "no_rows",
    "random_order",
    "rows_of_a_block",
    "starts",
    "tensor_of",
]

_BLOCK = 2**18  # entries that are read at a time


class TensorRows:
    """The rows of a tensor."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self.data.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self.data.dtype

    def __len__(self) -> int:
        return len(self.data)

    def take(self, rows: Tensor) -> Tensor:
        return self.data[rows.to(self.data.device)]

    def blocks(self, size: int | None = None, share: Share = Share()) -> Iterator[Tensor]:
        yield from self.data.split(size or rows_of_a_block(self.event_shape))[share.rank :: share.size]


class ArrayRows:
    """The rows of an array, which may be mapped from a file: only the requested rows are copied.

    Rows of a mapped array are read in memory that does not grow with the file (see ``MappedRows``). Another process
    gets the place of a mapped array in its file, and not the contents.
    """

    def __init__(self, data: np.ndarray) -> None:
        self.data = data
        self.is_mapped = memory_map_of(data) is not None
        self._mapped = MappedRows(data, kept=data.nbytes <= KEPT_BYTES) if self.is_mapped else None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.data.shape

    @property
    def event_shape(self) -> tuple[int, ...]:
        return self.data.shape[1:]

    @property
    def dtype(self) -> torch.dtype:
        return dtype_of(self.data.dtype)

    def __len__(self) -> int:
        return len(self.data)

    def take(self, rows: Tensor) -> Tensor:
        index = rows.numpy()
        return tensor_of(np.asarray(self.data[index]) if self._mapped is None else self._mapped.take(index))

    def blocks(self, size: int | None = None, share: Share = Share()) -> Iterator[Tensor]:
        size = size or rows_of_a_block(self.event_shape)
        for start in starts(len(self), size, share):
            stop = start + size
            block = self.data[start:stop] if self._mapped is None else self._mapped.block(start, stop)
            yield tensor_of(np.asarray(block))

    def __getstate__(self) -> Place | np.ndarray:
        return Place.of(self.data) or self.data

    def __setstate__(self, state: Place | np.ndarray) -> None:
        self.__init__(state.open() if isinstance(state, Place) else state)  # type: ignore[misc]


class DatasetRows:
    """The items of a torch ``Dataset``; an item that is a tuple, such as (image, label), begins with the event."""

    def __init__(self, data: Dataset[Any]) -> None:
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            raise TypeError(
                f"expected a Dataset with a length and items by number, got {type(data).__name__}; give a stream as a "
                "DataLoader, or as a function (n, generator) -> events"
            )
        self.data: Any = data

    @cached_property
    def _first(self) -> Tensor:
        return self.take(torch.tensor([0]))

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.event_shape)

    @property
    def event_shape(self) -> tuple[int, ...]:
        return tuple(self._first.shape[1:])

    @property
    def dtype(self) -> torch.dtype:
        return self._first.dtype

    def __len__(self) -> int:
        return len(self.data)

    def take(self, rows: Tensor) -> Tensor:
        indices = rows.tolist()
        many = getattr(self.data, "__getitems__", None)
        items = many(indices) if callable(many) else [self.data[index] for index in indices]
        return event_part(default_collate(items))

    def blocks(self, size: int | None = None, share: Share = Share()) -> Iterator[Tensor]:
        size = size or 1024
        for start in starts(len(self), size, share):
            yield self.take(torch.arange(start, min(start + size, len(self))))


def no_rows(x: Any, expected: str, *, source: str) -> TypeError:
    """Return the error that x holds no rows of events; for a set of several parts, it names the part to pass.

    Args:
        x: What came.
        expected: What was expected.
        source: How the error messages call the events.
    """
    parts = hasattr(x, "train") and hasattr(x, "validation") and hasattr(x, "test")
    instead = "; pass data.train, data.validation or data.test" if parts else ""
    return TypeError(f"{source}: expected {expected}, got {_kind(x)}{instead}")


def event_part(batch: Any) -> Tensor:
    """Return the events of a batch: a tensor or an array, or the first entry of a tuple of these.

    Args:
        batch: A batch of a ``Dataset`` or a ``DataLoader``.

    Raises:
        TypeError: If the batch is neither a tensor or an array nor a tuple that begins with one.
    """
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    if isinstance(batch, np.ndarray):
        return tensor_of(batch)
    if not isinstance(batch, Tensor):
        raise TypeError(
            f"expected events as a tensor, or as the first entry of a tuple, got {_kind(batch)}; "
            "give a Dataset with items of this form, or a DataLoader whose collate_fn picks the events"
        )
    return batch


def random_order(count: int, generator: torch.Generator) -> Tensor:
    """Return the row indices 0 .. count - 1 in random order, in 32 bits where they suffice, to save memory."""
    return torch.randperm(count, generator=generator, dtype=torch.int32 if count < 2**31 else torch.int64)


def tensor_of(array: np.ndarray) -> Tensor:
    """Return an array as a tensor in the nearest dtype that torch has, with shared memory where that is safe."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    # torch cannot protect memory that must not be written to
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def dtype_of(dtype: np.dtype) -> torch.dtype:
    """Return the dtype of the tensor that :func:`tensor_of` makes of an array."""
    return tensor_of(np.empty(0, dtype)).dtype


def starts(count: int, size: int, share: Share) -> range:
    """Return the first rows of the blocks that one of several processes reads: every ``share.size``-th block."""
    return range(share.rank * size, count, share.size * size)


def rows_of_a_block(event_shape: tuple[int, ...]) -> int:
    """Return how many rows are read at a time where the reader does not say."""
    return max(1, _BLOCK // max(1, math.prod(event_shape)))


def _kind(value: object) -> str:
    return type(value).__name__
