"""Arrays in ``.npy`` files: one, or a folder of shards with the same kind of events."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pyro_gflows.datasets.mapped import mapped_array

__all__ = ["NpyStore"]


class NpyStore:
    """Arrays in ``.npy`` files, one after the other; each may have another number of rows.

    Args:
        path: The file, or the folder of the files.
        files: The files, in their order.

    Raises:
        ValueError: If a file cannot be read, if it holds no rows of events, or if its events have another shape or
            dtype than those of the first file.
    """

    kind = ".npy"
    is_mapped = True

    def __init__(self, path: Path, files: Sequence[Path]) -> None:
        self.path = path
        self.files = tuple(files)
        arrays = [_header(file) for file in self.files]
        (_, self.event_shape, self.dtype) = arrays[0]
        for file, (_, event_shape, dtype) in zip(self.files, arrays, strict=True):
            if (event_shape, dtype) != (self.event_shape, self.dtype):
                raise ValueError(
                    f"{file} holds {dtype} events of shape {event_shape}, but {self.files[0].name} holds {self.dtype} "
                    f"events of shape {self.event_shape}: expected one shape and dtype in all files of {path}"
                )
        self.lengths = tuple(rows for rows, _, _ in arrays)

    def read(self, part: int) -> np.ndarray:
        """Map the array of a file.

        Args:
            part: The number of the file.

        Raises:
            ValueError: If the file has changed since it was opened.
        """
        array, file = mapped_array(self.files[part]), self.files[part]
        if array.shape != (self.lengths[part], *self.event_shape) or array.dtype != self.dtype:
            raise ValueError(
                f"{file} has changed since it was opened: expected {self.dtype} of shape "
                f"{(self.lengths[part], *self.event_shape)}, got {array.dtype} of shape {array.shape}"
            )
        return array


def _header(file: Path) -> tuple[int, tuple[int, ...], np.dtype]:
    """The number of rows of a file, the shape of its events and their dtype."""
    array = mapped_array(file)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{file}: expected real floating-point values, got {array.dtype}; save an array of floats")
    if array.ndim < 2:
        raise ValueError(
            f"{file}: expected rows of events, got an array of shape {array.shape}; reshape to (rows, event)"
        )
    return len(array), array.shape[1:], array.dtype
