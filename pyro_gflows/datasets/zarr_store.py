"""Zarr arrays, which zarr reads chunk by chunk."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["ZarrStore", "is_zarr"]

_MARKS = ("zarr.json", ".zarray", ".zgroup")


def is_zarr(path: Path) -> bool:
    """Whether a folder holds a Zarr array or group.

    Args:
        path: The folder.
    """
    return path.is_dir() and (path.suffix.lower() == ".zarr" or any((path / mark).exists() for mark in _MARKS))


class ZarrStore:
    """An array in a Zarr folder, with one event a row; a part is what is chunked together along the first axis.

    Args:
        path: The folder.
        key: The name of the array in a Zarr group; None for the folder of an array.

    Raises:
        ImportError: If zarr is not installed.
        ValueError: If the folder cannot be read, if it holds a group and there is no array of this name in it, or if
            the array has no rows of events.
        TypeError: If the array holds something else than real values.
    """

    kind = "Zarr"
    is_mapped = False

    def __init__(self, path: Path, key: str | None = None) -> None:
        self.path = path
        self._key = key
        array = _array(path, key)
        self.dtype = np.dtype(array.dtype)
        if self.dtype.kind not in "fiub":
            raise TypeError(f"{path}: expected real floating-point values, got {self.dtype}; store an array of floats")
        if array.ndim < 2:
            raise ValueError(f"{path}: expected rows of events, got an array of shape {array.shape}")
        self.event_shape = tuple(array.shape[1:])
        rows = int(array.shape[0])
        self._step = int((getattr(array, "shards", None) or array.chunks)[0])
        self.lengths = tuple(min(self._step, rows - start) for start in range(0, rows, self._step)) or (0,)
        self._array: Any = array

    def read(self, part: int) -> np.ndarray:
        """Decode the chunks of some consecutive rows.

        Args:
            part: The number of the chunk along the first axis.
        """
        if self._array is None:
            self._array = _array(self.path, self._key)
        start = part * self._step
        return np.asarray(self._array[start : start + self.lengths[part]])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_array": None}


def _array(path: Path, key: str | None) -> Any:
    try:
        import zarr
    except ImportError as error:
        raise ImportError(f"zarr reads {path.name}: pip install 'pyro-gflows[files]'") from error
    try:
        found = zarr.open(path, mode="r")
    except Exception as error:  # zarr has errors of many kinds
        raise ValueError(f"cannot read {path}: {error}") from error
    if isinstance(found, zarr.Group):
        names = sorted(found.array_keys())
        if key not in names:
            raise ValueError(
                f"{path} is a group of the arrays {names}: name one, open_rows(path, key=...), got {key!r}"
            )
        return found[key]
    if key is not None:
        raise ValueError(f"{path} holds one array without a name, received key={key!r}")
    return found
