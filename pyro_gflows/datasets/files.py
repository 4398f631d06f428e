"""Readers of the user's own arrays, which are checked before any training starts."""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.datasets.checks import check_data
from pyro_gflows.datasets.tables import read_csv

__all__ = ["FILE_ENDINGS", "in_dtype", "is_file_name", "load_array", "read_array"]

FILE_ENDINGS = (".npy", ".npz", ".csv")


def is_file_name(name: str) -> bool:
    """Return whether a name of data is the name of a file that can be read, by its ending.

    Args:
        name: The name of a data set, or the path of a file.

    Example:
        >>> is_file_name("points.csv"), is_file_name("rings")
        (True, False)
    """
    return Path(name).suffix.lower() in FILE_ENDINGS


def load_array(
    path: str | Path,
    *,
    key: str | None = None,
    event_shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    r"""Read an array of events, one a row, from a ``.npy``, ``.npz`` or ``.csv`` file.

    Nothing is unpickled. A ``.csv`` file may have a first line with the names of its columns and a first column with
    the names of its rows, as pandas writes them; both are left out.

    Args:
        path: The file.
        key: The name of the array in an ``.npz`` file; needed when the file holds more than one.
        event_shape: Expected shape of one event, if known.
        dtype: The dtype of the result; by default torch's default dtype.

    Raises:
        ValueError: If there is no such file, if its ending is unknown, if it cannot be read or is empty, if a row holds
            NaN, inf or a value that is too large for the dtype, or if the events have a wrong shape.
        TypeError: If the file holds an integer, object or complex array; the message says what to do.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     path = Path(folder) / "points.csv"
        ...     _ = path.write_text("x,y\n1.0,2.0\n3.0,4.5\n")
        ...     load_array(path, event_shape=(2,))
        tensor([[1.0000, 2.0000],
                [3.0000, 4.5000]])
    """
    x = check_data(read_array(path, key=key), event_shape=event_shape, source=str(path))
    return in_dtype(x, dtype or torch.get_default_dtype(), source=str(path))


def in_dtype(x: Tensor, dtype: torch.dtype, *, source: str) -> Tensor:
    """Return rows of finite values in another dtype; a ValueError names the first row that overflows in it."""
    converted = x.to(dtype)
    bad = ~converted.flatten(1).isfinite().all(-1)
    if bad.any():
        row = int(bad.nonzero()[0])
        largest = float(x[row].abs().max())
        raise ValueError(
            f"{source}: row {row} holds {largest:.3g}, more than {str(dtype).removeprefix('torch.')} can hold "
            f"({torch.finfo(dtype).max:.3g}); divide the data by their standard deviation"
        )
    return converted


def read_array(path: str | Path, *, key: str | None = None) -> np.ndarray:
    """Read the array of a file as it is stored, with its own dtype and shape.

    Args:
        path: A ``.npy``, ``.npz`` or ``.csv`` file.
        key: The name of the array in an ``.npz`` file; needed when the file holds more than one.

    Raises:
        ValueError: If there is no such file, if its ending is unknown, if it cannot be read or is empty, or if it holds
            no array of the name ``key``.
        TypeError: If the array holds something else than real values.

    Example:
        >>> import tempfile
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     np.save(Path(folder) / "levels.npy", np.zeros((3, 8, 8), dtype=np.uint8))
        ...     read_array(Path(folder) / "levels.npy").dtype
        dtype('uint8')
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no such data file: {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): expected an array with one event a row")
    ending = path.suffix.lower()
    if ending not in FILE_ENDINGS:
        raise ValueError(f"{path} ends in {path.suffix!r}: expected .npy, .npz or .csv")
    if key is not None and ending != ".npz":
        raise ValueError(f"{path} holds one array without a key, received the key {key!r}; only .npz files have keys")
    array = read_csv(path) if ending == ".csv" else _read_numpy(path, key)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{path}: expected real floating-point values, got {array.dtype}; save an array of floats")
    if array.size == 0:
        raise ValueError(f"{path} is empty: expected one event a row, got an array of shape {array.shape}")
    return array


def _read_numpy(path: Path, key: str | None) -> np.ndarray:
    try:
        with path.open("rb") as file:
            stored = np.load(file, allow_pickle=False)
            if isinstance(stored, np.ndarray):
                return stored
            names = list(stored.files)
            if not names:
                raise ValueError("it holds no array")
            if key is None and len(names) > 1:
                raise ValueError(f"it holds the arrays {names}: name one as the key (on the command line: --key NAME)")
            if key is not None and key not in names:
                raise ValueError(f"it holds the arrays {names}, not {key!r}; the key is one of these names")
            return np.asarray(stored[key or names[0]])
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        reason = "it holds Python objects or is no NumPy file" if "allow_pickle" in str(error) else str(error)
        raise ValueError(f"cannot read {path}: {reason}") from error
