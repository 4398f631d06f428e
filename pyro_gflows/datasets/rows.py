"""Stored events that are read a few rows at a time, so that data larger than memory can be fitted."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset, default_collate

__all__ = ["Rows", "as_rows", "event_part", "random_order", "tensor_of"]

_BLOCK = 2**18  # entries that are read at a time


class Rows(Protocol):
    """Events by row number; ``blocks`` reads all of them in order."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Tensor: ...

    def blocks(self, size: int | None = None) -> Iterator[Tensor]: ...


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
    """The rows of an array, which may be memory-mapped: only the rows that are asked for are copied."""

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
    """The items of a torch ``Dataset``; of an item that is a tuple, such as (image, label), the first entry."""

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
        numbers = rows.tolist()
        many = getattr(self.data, "__getitems__", None)
        items = many(numbers) if callable(many) else [self.data[number] for number in numbers]
        return event_part(default_collate(items))

    def blocks(self, size: int | None = None) -> Iterator[Tensor]:
        size = size or 1024
        for start in range(0, len(self), size):
            yield self.take(torch.arange(start, min(start + size, len(self))))


def as_rows(x: Any, *, source: str = "data") -> Rows:
    """Rows of a tensor, an array or a ``Dataset``; of a ``DataLoader``, all batches of one pass, held in memory.

    Args:
        x: The events.
        source: What the error messages call them.

    Raises:
        TypeError: Something else, or an array of other values than real numbers.

    Example:
        >>> len(as_rows(np.zeros((5, 2))))
        5
    """
    if isinstance(x, Tensor):
        return TensorRows(x)
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            raise TypeError(f"{source}: expected real floating-point numbers, got {x.dtype}; use .astype")
        if isinstance(x, np.ma.MaskedArray):
            raise TypeError(f"{source}: expected an array without a mask; remove the masked rows, then use .data")
        return ArrayRows(x)
    if isinstance(x, TensorDataset) and type(x).__getitem__ is TensorDataset.__getitem__:  # one that changes nothing
        return TensorRows(x.tensors[0])
    if isinstance(x, DataLoader):
        batches = [event_part(batch) for batch in x]
        if not batches:
            raise ValueError(f"{source} is empty: the DataLoader gives no batch")
        return TensorRows(torch.cat(batches))
    if isinstance(x, Dataset):
        return DatasetRows(x)
    raise TypeError(f"{source}: expected a tensor or an array with one event a row, or a Dataset, got {_kind(x)}")


def event_part(batch: Any) -> Tensor:
    """The events of what a ``Dataset`` or ``DataLoader`` gives: a tensor or array, or the first entry of a tuple.

    Raises:
        TypeError: Neither of these.
    """
    if isinstance(batch, (tuple, list)) and batch:
        batch = batch[0]
    if isinstance(batch, np.ndarray):
        return tensor_of(batch)
    if not isinstance(batch, Tensor):
        raise TypeError(
            f"expected events as a tensor, or as the first entry of a tuple, got {_kind(batch)}; "
            "give a Dataset whose items are such, or a DataLoader with a collate_fn that picks them"
        )
    return batch


def random_order(count: int, generator: torch.Generator) -> Tensor:
    """The row numbers 0 .. count - 1 in random order, in as few bytes as hold them: of very many rows that matters."""
    return torch.randperm(count, generator=generator, dtype=torch.int32 if count < 2**31 else torch.int64)


def tensor_of(array: np.ndarray) -> Tensor:
    """The array as a tensor in the nearest dtype that torch has; shares memory where that is safe."""
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    array = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("="))
    # torch cannot protect memory that must not be written to
    return torch.from_numpy(array if array.flags.writeable else array.copy())


def _rows_of(event_shape: tuple[int, ...]) -> int:
    return max(1, _BLOCK // max(1, math.prod(event_shape)))


def _kind(value: object) -> str:
    return type(value).__name__
