"""What can be fitted: rows of finite floating-point events, checked before any training starts."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

__all__ = ["check_data"]


def check_data(x: Tensor | np.ndarray, *, event_shape: Sequence[int] | None = None, source: str = "data") -> Tensor:
    """Return x as a tensor of rows if it can be fitted, otherwise say what is wrong with it.

    Args:
        x: Events, shape (rows,) + event_shape, of a floating dtype.
        event_shape: Expected shape of one row, if known.
        source: What the error messages call it.

    Raises:
        ValueError: No rows, NaN or inf (with the first such row), or a wrong event shape.
        TypeError: Not a real floating dtype.

    Example:
        >>> check_data(torch.tensor([[0.0, float("nan")]]))
        Traceback (most recent call last):
        ...
        ValueError: data: row 0 holds nan (1 of 1 rows are not finite): remove or repair these rows
    """
    if isinstance(x, np.ndarray):
        if x.dtype.kind not in "fiub":
            raise TypeError(f"{source}: expected real floating-point numbers, got {x.dtype}; use .astype")
        x = torch.from_numpy(np.ascontiguousarray(x.astype(x.dtype.newbyteorder("="))))
    if not isinstance(x, Tensor):
        raise TypeError(f"{source}: expected a tensor or an array with one event a row, got {type(x).__name__}")
    if not x.is_floating_point():
        raise TypeError(
            f"{source}: expected floating-point data, got {str(x.dtype).removeprefix('torch.')}; a density needs "
            "continuous values: dequantise levels k = 0..n-1 with (k + u)/n, u uniform on [0, 1) "
            "(pyro_gflows.datasets.GreyLevels), or convert counts that are really continuous with .astype('float32')"
        )
    if x.ndim == 0 or x.numel() == 0:
        raise ValueError(f"{source} is empty: expected rows of events, got an array of shape {tuple(x.shape)}")
    if event_shape is not None and tuple(x.shape[1:]) != tuple(event_shape):
        raise ValueError(
            f"{source}: expected event shape {tuple(event_shape)}, received {tuple(x.shape[1:])} "
            f"(the array has shape {tuple(x.shape)}: rows first)"
        )
    if x.ndim == 1:
        raise ValueError(
            f"{source}: expected rows of events, received shape {tuple(x.shape)}; reshape to (rows, event)"
        )
    bad = ~x.flatten(1).isfinite().all(-1)
    if bad.any():
        row = int(bad.nonzero()[0])
        values = x[row].flatten()
        value = values[~values.isfinite()][0].item()
        raise ValueError(
            f"{source}: row {row} holds {value} ({int(bad.sum())} of {len(x)} rows are not finite): "
            "remove or repair these rows"
        )
    return x
