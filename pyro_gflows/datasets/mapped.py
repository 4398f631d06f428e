"""Arrays that are mapped from a file: where they lie in it, and how their pages leave the memory again."""

from __future__ import annotations

import math
import mmap
import os
import weakref
from dataclasses import dataclass
from pathlib import Path

import numpy as np

__all__ = ["KEPT_BYTES", "MappedRows", "Place", "mapped_array", "memory_map_of", "release"]

KEPT_BYTES = 2**26
"""Mapped arrays of up to so many bytes may stay in memory."""

_MAPPED_AT_ONCE = 16  # places around which the system may map 2 MB each
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


def release(array: np.ndarray) -> None:
    """Let the pages of a mapped array leave the memory of the process; they are read again where they are needed.

    Pages of a mapped file that were read count as memory of the process until then.

    Args:
        array: An array that is mapped from a file, or a part of one.
    """
    whole = memory_map_of(array)
    advice = getattr(mmap, "MADV_DONTNEED", None)  # some systems take no advice
    pages: object = None if whole is None else whole.base
    if advice is not None and isinstance(pages, mmap.mmap):
        pages.madvise(advice)


class MappedRows:
    """The rows of an array that is mapped from a file, read without memory that grows with the file.

    The pages of a mapping that were touched count as memory of the process, and the system maps up to 2 MB around a row
    that is read. So the rows of all but small arrays are read from the file itself, where they lie in one piece;
    otherwise they are read through the mapping, and its pages are released after each reading.

    Args:
        array: An array that is mapped from a file, or a part of one.
        kept: Whether its pages may stay in memory, since the array, or all arrays of which it is one, are small.
    """

    def __init__(self, array: np.ndarray, *, kept: bool) -> None:
        self._array = array
        self._kept = kept
        self._length, self._event_shape, self._dtype = len(array), array.shape[1:], array.dtype
        self._row_bytes = array.dtype.itemsize * math.prod(array.shape[1:])
        in_one_piece = bool(len(array)) and array[0].flags.c_contiguous
        pieces = 1 if in_one_piece else max(1, math.prod(array.shape[1:]))
        self._at_once = max(1, _MAPPED_AT_ONCE // pieces)
        self._file: int | None = None
        place = Place.of(array)
        if not kept and place is not None and in_one_piece and hasattr(os, "preadv") and place.path.is_file():
            self._open(place)

    def _open(self, place: Place) -> None:
        self._path, self._start, self._step = place.path, place.start, place.strides[0]
        self._file = os.open(place.path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._file)
        ends = np.array([0, self._length - 1])
        try:
            same = self.take(ends).tobytes() == self._array[ends].tobytes()
        except ValueError:
            same = False
        if not same:  # another file has its name now
            self._file = None
        elif self._step == self._row_bytes:
            self._array = self._array[:0].copy()  # the mapping is not needed, and a process may have few files open

    def __len__(self) -> int:
        return self._length

    def take(self, rows: np.ndarray) -> np.ndarray:
        """Return a copy of some rows.

        Args:
            rows: The indices of the rows.

        Raises:
            ValueError: If the file has become shorter.
        """
        if self._file is None and not self._kept and len(rows) > self._at_once:
            firsts = range(0, len(rows), self._at_once)
            return np.concatenate([self.take(rows[first : first + self._at_once]) for first in firsts])
        if self._file is None:
            return self._through_the_mapping(self._array[rows])
        if len(rows) > 1 and rows[-1] - rows[0] == len(rows) - 1 and (np.diff(rows) == 1).all():
            return self.block(int(rows[0]), int(rows[-1]) + 1)  # read as one piece
        size, read = self._row_bytes, os.pread
        found = bytearray().join([read(self._file, size, self._start + self._step * row) for row in rows.tolist()])
        return self._shaped(found, len(rows))

    def block(self, start: int, stop: int) -> np.ndarray:
        """Return a copy of consecutive rows.

        Args:
            start: The first row.
            stop: The row after the last one.

        Raises:
            ValueError: If the file has become shorter.
        """
        stop = min(stop, len(self))
        if self._file is None or self._step != self._row_bytes:
            return self._through_the_mapping(np.array(self._array[start:stop]))
        found = bytearray((stop - start) * self._row_bytes)
        missing = memoryview(found)
        while missing:
            position = self._start + self._step * start + len(found) - len(missing)
            count = os.preadv(self._file, [missing], position)
            if count == 0:
                break
            missing = missing[count:]
        return self._shaped(found[: len(found) - len(missing)], stop - start)

    def _through_the_mapping(self, rows: np.ndarray) -> np.ndarray:
        if not self._kept:
            release(self._array)
        return rows

    def _shaped(self, found: bytearray, rows: int) -> np.ndarray:
        if len(found) != rows * self._row_bytes:
            raise ValueError(f"{self._path} has become shorter than it was when it was opened")
        return np.frombuffer(found, self._dtype).reshape(rows, *self._event_shape)


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
