"""Rows that stand for all rows of files that are too large to be read at the start of a run."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.file_rows import FileRows
from pyro_gflows.datasets.rows import Rows, in_memory

__all__ = ["is_sampled", "sampled_rows", "spread"]

_LARGEST = 2**24  # entries; files with more are not read as a whole
_ROWS = 4096
_PARTS = 8  # parts that are decoded as a whole, such as row groups


def spread(rows: Rows, count: int) -> Tensor:
    """Return the indices of up to so many rows, evenly spaced; where parts are decoded as a whole, in a few of them.

    Args:
        rows: The rows.
        count: The largest number of rows.
    """
    if isinstance(rows, FileRows) and not rows.store.is_mapped:
        lengths = np.asarray(rows.store.lengths)
        filled = np.flatnonzero(lengths)
        parts = filled[np.unique(_even(len(filled), _PARTS).numpy())]
        starts = np.cumsum(lengths) - lengths
        candidates = np.concatenate([np.arange(lengths[part]) + starts[part] for part in parts])
        return torch.from_numpy(candidates)[_even(len(candidates), count)]
    return _even(len(rows), count)


def is_sampled(rows: Rows) -> bool:
    """Whether rows lie in files that are too large to be read as a whole at the start of a run.

    Args:
        rows: The rows.
    """
    return not in_memory(rows) and len(rows) * math.prod(rows.event_shape) > _LARGEST


def sampled_rows(rows: Rows) -> Tensor:
    """Return the indices of the rows that stand for all rows of large files, always the same ones.

    Args:
        rows: The rows.
    """
    return spread(rows, _ROWS)


def _even(among: int, count: int) -> Tensor:
    return torch.linspace(0, among - 1, min(among, count), dtype=torch.float64).round().long()
