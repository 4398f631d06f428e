"""Arrays that are mapped from a file: where they lie in it, and how their pages leave the memory of the process again."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["TOUCHED_BYTES", "Place", "mapped_array", "memory_map_of", "release"]

TOUCHED_BYTES = 2**26
"""After so many bytes, pages that were read leave the process; the system's file cache keeps them."""

_SHARED = ("r", "r+", "w+")  # pages of the mode "c" hold the user's own changes and must stay


@dataclass(frozen=True)
class Place:
    """Where an array lies in a file: all that another process needs to map it again.

    Args:
        path: The file.
        start: The position of the first entry in the file, in bytes.
        shape: The shape of the array.
        strides: The steps from one entry to the next along each axis, in bytes.
        dtype: The dtype of the entries.
    """

    path: Path
    start: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype

    @staticmethod
    def of(array: np.ndarray) -> Place | None:
        """The place of an array that is mapped from a file, or is a part of one that is; None for any other.

        Args:
            array: Any array.
        """
        whole = memory_map_of(array)
        name = getattr(whole, "filename", None)
        if whole is None or name is None:
            return None
        first = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        return Place(Path(name), whole.offset + first, array.shape, array.strides, array.dtype)

    def open(self) -> np.ndarray:
        """Map the array from its file, which is only read."""
        whole = np.memmap(self.path, np.uint8, "r")
        return np.ndarray(self.shape, self.dtype, buffer=whole, offset=self.start, strides=self.strides)


def memory_map_of(array: np.ndarray) -> np.memmap | None:
    """The array that maps the pages of an array or of its parent, if they may leave memory; otherwise None.

    Args:
        array: Any array.
    """
    found = None
    base: object = array
    while isinstance(base, np.ndarray):
        if isinstance(base, np.memmap):
            found = base  # the last one spans all that is mapped; a view of it has the same attributes
        base = base.base
    return found if isinstance(base, mmap.mmap) and found is not None and found.mode in _SHARED else None


def release(array: np.ndarray) -> bool:
    """Let the pages of a mapped array leave the memory of the process; they are read again where they are needed.

    Pages of a mapped file that were read count as memory of the process until then.

    Args:
        array: An array that is mapped from a file, or a part of one.

    Returns:
        Whether it was possible on this system.
    """
    whole = memory_map_of(array)
    advice = getattr(mmap, "MADV_DONTNEED", None)
    pages = None if whole is None else whole.base
    if advice is None or not isinstance(pages, mmap.mmap):
        return False
    pages.madvise(advice)
    return True


def mapped_array(path: Path) -> np.ndarray:
    """Map the array of a ``.npy`` file, of which nothing but the header is read.

    Args:
        path: The file.

    Raises:
        ValueError: If it is not the file of an array of real values, or if it is shorter than its header says.
    """
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError, OSError) as error:
        raise ValueError(f"cannot read {path} as a .npy file: {error}") from error
