"""The user's own arrays, checked before any training starts."""

from __future__ import annotations

import csv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.infer.training.data import check_data

__all__ = ["load_array"]


def load_array(
    path: str | Path,
    *,
    key: str | None = None,
    event_shape: Sequence[int] | None = None,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Read an array of events, one a row, from a ``.npy``, ``.npz`` or ``.csv`` file. Nothing is unpickled.

    Args:
        path: The file; a first line of ``.csv`` that is not numeric is taken as a header.
        key: Which array of an ``.npz`` file; needed when it holds more than one.
        event_shape: Expected shape of one row, if known.
        dtype: Of the result (default: torch's default dtype).

    Raises:
        ValueError: No such file, unknown ending, unreadable, empty, NaN or inf (with the row), or a wrong event shape.
        TypeError: An integer, object or complex array; the message says what to do.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no such data file: {path}")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty (0 bytes): expected an array with one event a row")
    if path.suffix == ".csv":
        array = _read_csv(path)
    elif path.suffix in (".npy", ".npz"):
        array = _read_numpy(path, key)
    else:
        raise ValueError(f"{path} ends in {path.suffix!r}: expected .npy, .npz or .csv")
    return check_data(array, event_shape=event_shape, source=str(path)).to(dtype or torch.get_default_dtype())


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
                raise ValueError(f"it holds the arrays {names}: say which with key=")
            if key is not None and key not in names:
                raise ValueError(f"it holds the arrays {names}, not {key!r}")
            return np.asarray(stored[key or names[0]])
    except (ValueError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise ValueError(f"cannot read {path}: {error}") from error


def _read_csv(path: Path) -> np.ndarray:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as text: {error}") from error
    if lines and not any(_is_number(cell) for cell in lines[0][1]):
        lines = lines[1:]
    if not lines:
        raise ValueError(f"{path} is empty: expected one event a line, numbers separated by commas")
    width = len(lines[0][1])
    rows = []
    for number, row in lines:
        if len(row) != width:
            raise ValueError(f"{path}, line {number}: expected {width} numbers, received {len(row)}")
        wrong = [cell for cell in row if not _is_number(cell)]
        if wrong:
            raise ValueError(f"{path}, line {number}: expected numbers, received {wrong[0]!r}")
        rows.append([float(cell) for cell in row])
    return np.array(rows)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
