"""Stored events that are read a few rows at a time, so that data larger than the memory can be fitted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol, TypeGuard

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyro_gflows.datasets.array_rows import ArrayRows, DatasetRows, TensorRows, event_part, no_rows, tensor_of
from pyro_gflows.datasets.file_rows import FileRows
from pyro_gflows.datasets.opening import open_rows
from pyro_gflows.datasets.share import Share

__all__ = [
    "ArrayRows",
    "DatasetRows",
    "FileRows",
    "Rows",
    "TensorRows",
    "as_rows",
    "in_memory",
    "is_stored",
    "tensor_of",
]


class Rows(Protocol):
    """Stored events that are read by the indices of their rows.

    Tensors, arrays (which may be memory-mapped), files and torch datasets are read in this way, so that a fit needs
    only the rows of a batch in memory.

    Example:
        >>> rows: Rows = as_rows(np.arange(6.0).reshape(3, 2))
        >>> rows.take(torch.tensor([2, 0])).tolist()
        [[4.0, 5.0], [0.0, 1.0]]
    """

    @property
    def shape(self) -> tuple[int, ...]:
        """The number of rows and the shape of one event."""

    @property
    def event_shape(self) -> tuple[int, ...]:
        """The shape of one event."""

    @property
    def dtype(self) -> torch.dtype:
        """The dtype in which the events come."""

    def __len__(self) -> int: ...

    def take(self, rows: Tensor) -> Tensor:
        """Return the events of some rows, by their indices."""

    def blocks(self, size: int | None = None, share: Share = Share()) -> Iterator[Tensor]:
        """Read all events in order, ``size`` rows at a time; of several processes each reads its share of the blocks.

        Args:
            size: The number of rows in a block.
            share: Which of several processes reads.
        """


def as_rows(x: Any, *, source: str = "data") -> Rows:
    """Return the rows of a tensor, an array, a file or a ``Dataset``, or all batches of a pass over a ``DataLoader``.

    The batches of a ``DataLoader`` are kept in memory. A path is opened by
    :func:`~pyro_gflows.datasets.open_rows`.

    Args:
        x: The events.
        source: How the error messages call the events.

    Raises:
        TypeError: If x is something else, or an array of other values than real ones.
        ValueError: If a ``DataLoader`` gives no batch, or if a path cannot be opened.

    Example:
        >>> len(as_rows(np.zeros((5, 2))))
        5
    """
    if isinstance(x, (TensorRows, ArrayRows, DatasetRows, FileRows)):
        return x
    if isinstance(x, (str, Path)):
        return open_rows(x)
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


def is_stored(x: Any) -> TypeGuard[TensorRows | ArrayRows | FileRows]:
    """Whether x are the rows of a tensor, an array or a file: the same values at every reading, and quick to read.

    Args:
        x: Rows, a loader or a sampler.
    """
    return isinstance(x, (TensorRows, ArrayRows, FileRows))


def in_memory(rows: Rows) -> bool:
    """Whether all rows are in memory already, as those of a tensor are.

    Args:
        rows: The rows.
    """
    return isinstance(rows, TensorRows) or (isinstance(rows, ArrayRows) and not rows.is_mapped)
