"""Stored events that are read a few rows at a time, so that data larger than the memory can be fitted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

__all__ = ["Rows", "as_rows", "event_part", "no_rows", "random_order", "tensor_of"]

_BLOCK = 2**18  # entries that are read at a time


class Rows(Protocol):
    """Stored events that are read by the indices of their rows.

    Tensors, arrays (which may be memory-mapped) and torch datasets are read in this way, so that a fit needs only the
    rows of a batch in memory.

    Example:
        >>> rows: Rows = as_rows(np.arange(6.0).reshape(3, 2))
        >>> rows.take(torch.tensor([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Tensor:
        """Return the events of some rows, by their indices."""

    def blocks(self, size: int | None = None) -> Iterator[Tensor]:
        """Read all events in order, ``size`` rows at a time."""


class TensorRows:
    """The rows of a tensor."""

    def __init__(self, data: Tensor) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def take(self, rows: Tensor) -> Tensor:
        return self.data[rows.to(self.data.device)]

    def blocks(self, size: int | None = None) -> Iterator[Tensor]:
        yield from self.data.split(size or _rows_of(self.data.shape[1:]))


class ArrayRows:
    """The rows of an array, which may be memory-mapped: only the requested rows are copied."""

    def __init__(self, data: np.ndarray) -> None:
        self.data = data

    def __len__(self) -> int:
        return len(self.data)

    def take(self, rows: Tensor) -> Tensor:
        return tensor_of(np.asarray(self.data[rows.numpy()]))

    def blocks(self, size: int | None = None) -> Iterator[Tensor]:
        size = size or _rows_of(self.data.shape[1:])
        for start in range(0, len(self.data), size):
            yield tensor_of(np.asarray(self.data[start : start + size]))


class DatasetRows:
    """The items of a torch ``Dataset``; an item that is a tuple, such as (image, label), begins with the event."""

    def __init__(self, data: Dataset[Any]) -> None:
        if not hasattr(data, "__len__") or not hasattr(data, "__getitem__"):
            raise TypeError(
                f"expected a Dataset with a length and items by number, got {type(data).__name__}; give a stream as a "
                "DataLoader, or as a function (n, generator) -> events"
            )
        self.data: Any = data

    def __len__(self) -> int:
        return len(self.data)

    def take(self, rows: Tensor) -> Tensor:
        indices = rows.tolist()
        many = getattr(self.data, "__getitems__", None)
        items = many(indices) if callable(many) else [self.data[index] for index in indices]
        return event_part(default_collate(items))

    def blocks(self, size: int | None = None) -> Iterator[Tensor]:
        size = size or 1024
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))


def as_rows(x: Any, *, source: str = "data") -> Rows:
    """Return the rows of a tensor, an array or a ``Dataset``, or all batches of one pass over a ``DataLoader``.

    The batches of a ``DataLoader`` are kept in memory.

    Args:
        x: The events.
        source: How the error messages call the events.

    Raises:
        TypeError: If x is something else, or an array of other values than real ones.
        ValueError: If a ``DataLoader`` gives no batch.

    Example:
        >>> len(as_rows(np.zeros((5, 2))))
        5
    """
    if isinstance(x, Tensor):
        return TensorRows(x)
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            raise TypeError(f"{source}: expected real floating-point values, got {x.dtype}; convert them with .astype")
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"{source}: expected an array without a mask; remove the masked rows, then use .data")
        return ArrayRows(x)
    if isinstance(x, TensorDataset) and type(x).__getitem__ is TensorDataset.__getitem__:  # a subclass may change items
        return TensorRows(x.tensors[0])
    if isinstance(x, DataLoader):
        batches = [event_part(batch) for batch in x]
        if not batches:
            raise ValueError(f"{source} is empty: the DataLoader gives no batch")
        return TensorRows(torch.cat(batches))
    if isinstance(x, Dataset):
        return DatasetRows(x)
    raise no_rows(x, "a tensor or an array with one event a row, or a Dataset", source=source)


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


def _rows_of(event_shape: tuple[int, ...]) -> int:
    return max(1, _BLOCK // max(1, math.prod(event_shape)))


def _kind(value: object) -> str:
    return type(value).__name__
