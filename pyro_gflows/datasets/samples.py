"""Rows that stand for all rows of files that are too large to be read at the start of a run."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.file_rows import FileRows
from pyro_gflows.datasets.rows import Rows, in_memory, is_stored

__all__ = ["is_sampled", "rows_fingerprint", "sampled_rows", "spread"]

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


def rows_fingerprint(rows: Rows, *, dtype: torch.dtype | None = None) -> str:
    """Return a text that distinguishes data sets: the shape and hash of stored rows, or the name of a ``Dataset``.

    Of files that are too large to be read as a whole, a sample of evenly spaced rows is hashed.

    Args:
        rows: The rows.
        dtype: The dtype in which the rows are used, so that the same values in another dtype count as the same data.
    """
    if not is_stored(rows):
        return f"{type(getattr(rows, 'data', rows)).__qualname__} of {len(rows)} items"
    digest, kept = hashlib.sha256(), dtype
    index = sampled_rows(rows) if is_sampled(rows) else None
    for block in rows.blocks() if index is None else map(rows.take, index.split(1024)):
        block = block.detach().cpu() if dtype is None else block.detach().cpu().to(dtype)
        kept = block.dtype
        digest.update(block.contiguous().view(torch.uint8).numpy().data)
    of_some = "" if index is None else f" of {len(index)} rows"
    return f"{rows.shape} {kept} {digest.hexdigest()[:16]}{of_some}"


def _even(among: int, count: int) -> Tensor:
    return torch.linspace(0, among - 1, min(among, count), dtype=torch.float64).round().long()
