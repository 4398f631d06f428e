"""Checks that data are rows of finite floating-point events, before any training starts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from pyro_gflows.datasets.array_rows import DatasetRows, no_rows, tensor_of
from pyro_gflows.datasets.rows import Rows, as_rows, is_stored
from pyro_gflows.datasets.samples import is_sampled, sampled_rows

__all__ = ["as_events", "check_batch", "check_data", "check_rows"]


def check_data(x: Tensor | np.ndarray, *, event_shape: Sequence[int] | None = None, source: str = "data") -> Tensor:
    """Check that a flow can be fitted to x, and return x as a tensor.

    A fit to data with a NaN or of a wrong shape fails late, or not at all; this check names the first wrong row at
    once.

    Args:
        x: Events, shape (rows,) + event_shape, of a floating dtype.
        event_shape: Expected shape of one event, if known.
        source: How the error messages call the data.

    Raises:
        ValueError: If there are no rows, if a row holds NaN or inf (the message names the first such row), or if the
            events have a wrong shape.
        TypeError: If x is no tensor or array of a real floating dtype.

    Example:
        >>> check_data(np.zeros((3, 2)), event_shape=(2,)).shape
        torch.Size([3, 2])
        >>> check_data(torch.tensor([[0.0, float("nan")]]))
        Traceback (most recent call last):
        ...
        ValueError: data: row 0 holds nan (1 of 1 rows are not finite): remove or repair these rows
    """
    if not isinstance(x, (Tensor, np.ndarray)):
        raise no_rows(x, "a tensor or an array with one event a row", source=source)
    rows = as_rows(x, source=source)
    if isinstance(x, np.ndarray):
        x = np.array(x)  # in memory, so that a mapped array is checked in full
        rows = as_rows(x, source=source)
    check_rows(rows, event_shape=event_shape, source=source)
    return x if isinstance(x, Tensor) else tensor_of(x)


def check_rows(
    rows: Rows,
    *,
    event_shape: Sequence[int] | None = None,
    source: str = "data",
    dtype: torch.dtype | None = None,
) -> Rows:
    """Check that a flow can be fitted to rows, and return the rows.

    The rows are read a block at a time, and nothing is kept, so that the data may be larger than the memory.

    Args:
        rows: The events. Tensors, arrays and files are checked in full, files with more than about 17 million entries
            by a sample of evenly spaced rows; of a ``Dataset`` only the first item is read.
        event_shape: Expected shape of one event, if known.
        source: How the error messages call the data.
        dtype: The dtype in which the flow computes, if known: squares of the entries must not overflow in it.

    Raises:
        ValueError: As :func:`check_data` does, and if an entry is too large for ``dtype``.
        TypeError: As :func:`check_data` does.
    """
    if is_stored(rows):
        _check_shape(rows.shape, rows.dtype, event_shape=event_shape, source=source)
    elif len(rows) == 0:
        raise ValueError(f"{source} is empty: expected a Dataset with items, got one of length 0")
    if isinstance(rows, DatasetRows):
        check_batch(rows.take(torch.tensor([0])), event_shape=event_shape, source=source, dtype=dtype)
        return rows
    bad, first, value, read = 0, -1, math.nan, 0
    for numbers, block in _read(rows):
        finite = block.flatten(1).isfinite().all(-1)
        if not finite.all():
            if first < 0:
                row = int((~finite).nonzero()[0])
                values = block[row].flatten()
                first, value = int(numbers[row]), values[~values.isfinite()][0].item()
            bad += int((~finite).sum())
        elif dtype is not None:
            _check_size(block, dtype, source=source, numbers=numbers)
        read += len(block)
    if bad:
        raise ValueError(
            f"{source}: row {first} holds {value} ({bad} of {_count(read, len(rows))} rows are not finite): "
            "remove or repair these rows"
        )
    return rows


def check_batch(
    x: Any,
    *,
    event_shape: Sequence[int] | None = None,
    source: str = "the first batch",
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Check a batch of events as :func:`check_rows` does, and return the batch as a tensor.

    Args:
        x: Events, shape (rows,) + event_shape, as a tensor or an array.
        event_shape: Expected shape of one event, if known.
        source: How the error messages call the batch.
        dtype: The dtype in which the flow computes, if known.
    """
    check_rows(as_rows(x, source=source), event_shape=event_shape, source=source, dtype=dtype)
    return x if isinstance(x, Tensor) else tensor_of(x)


def as_events(x: Any, module: nn.Module, *, source: str = "x") -> Tensor:
    """Return a tensor or an array as a tensor in the dtype and on the device of a module's weights.

    Args:
        x: Events of any floating dtype.
        module: The module whose first weight (or, without weights, first floating-point buffer) has the wanted dtype
            and device.
        source: How the error messages call x.

    Raises:
        TypeError: If x is neither a tensor nor an array, or is not of a floating dtype.

    Example:
        >>> as_events(np.zeros((3, 2)), nn.Linear(2, 2)).dtype
        torch.float32
    """
    if isinstance(x, np.ndarray):
        x = tensor_of(as_rows(x, source=source).data)  # type: ignore[attr-defined]
    if not isinstance(x, Tensor):
        raise no_rows(x, "a tensor or an array with one event a row", source=source)
    _check_floating(x.dtype, source)
    tensors = [*module.parameters(), *module.buffers()]
    like = next((tensor for tensor in tensors if tensor.is_floating_point()), None)
    return x if like is None else x.to(like)


def _check_shape(shape: tuple[int, ...], dtype: torch.dtype, *, event_shape: Sequence[int] | None, source: str) -> None:
    _check_floating(dtype, source)
    if math.prod(shape) == 0:
        raise ValueError(f"{source} is empty: expected rows of events, got an array of shape {shape}")
    if event_shape is not None and shape[1:] != tuple(event_shape):
        raise ValueError(
            f"{source}: expected event shape {tuple(event_shape)}, received {shape[1:]} "
            f"(the array has shape {shape}: rows first)"
        )
    if len(shape) == 1:
        raise ValueError(f"{source}: expected rows of events, received shape {shape}; reshape to (rows, event)")


def _check_floating(dtype: torch.dtype, source: str) -> None:
    if dtype.is_floating_point:
        return
    raise TypeError(
        f"{source}: expected floating-point data, got {str(dtype).removeprefix('torch.')}; a density needs "
        "continuous values: dequantize levels k = 0..n-1 with (k + u)/n, u uniform on [0, 1) "
        "(pyro_gflows.datasets.GrayLevels), or convert counts that are really continuous with .astype('float32')"
    )


def _read(rows: Rows) -> Iterator[tuple[Sequence[int] | Tensor, Tensor]]:
    """The numbers and the events of all rows, a block at a time; of large files those of a sample."""
    if is_sampled(rows):
        index = sampled_rows(rows)
        yield from ((numbers, rows.take(numbers)) for numbers in index.split(1024))
        return
    start = 0
    for block in rows.blocks():
        yield range(start, start + len(block)), block
        start += len(block)


def _count(read: int, rows: int) -> str:
    return str(rows) if read == rows else f"a sample of {read}"


def _check_size(x: Tensor, dtype: torch.dtype, *, source: str, numbers: Sequence[int] | Tensor) -> None:
    """Raise a ValueError if |x|^2 of an event overflows in a dtype; half precision need only hold the entries."""
    largest = torch.finfo(dtype).max
    limit = math.sqrt(largest / max(1, math.prod(x.shape[1:]))) if largest > 1e6 else largest
    # the squares are also summed over a batch, hence the factor
    limit *= 1e-3 if largest > 1e6 else 1.0
    sizes = x.flatten(1).abs().amax(-1)
    if float(sizes.max()) < limit:
        return
    row = int((sizes >= limit).nonzero()[0])
    raise ValueError(
        f"{source}: row {int(numbers[row])} holds a value of size {float(sizes[row]):.3g}, whose square is too large "
        f"for {str(dtype).removeprefix('torch.')}: scale the data to unit standard deviation, or call .double() on the "
        "flow"
    )
