"""Reader of tables in .csv files, as NumPy, pandas, R and spreadsheets write them."""

from __future__ import annotations

import csv
import warnings
from pathlib import Path

import numpy as np

__all__ = ["read_csv"]

_Lines = list[tuple[int, list[str]]]  # the number of a line in the file, and its cells
_NO_NAME = ("", "Unnamed: 0")  # pandas gives these names to its column of row names
_OTHER_SEPARATORS = {";": "semicolons", "\t": "tabs", " ": "spaces"}


def read_csv(path: Path) -> np.ndarray:
    """Read the values of a table, float64, shape (lines, columns).

    A first line of column names is left out, also where they are pandas' names "0,1,..." of unnamed columns. The column
    of row names that pandas and R write is left out too; it has no name itself (or "Unnamed: 0", after it was read and
    written again). A byte order mark is skipped.

    Args:
        path: The file, with values separated by commas.

    Raises:
        ValueError: If the file is no text in UTF-8 or is empty, if its lines have different lengths, or if a cell is no
            number; the message names the line.

    Warns:
        UserWarning: If the first column counts the rows under a name of its own, since it may be a column of row names.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, row) for number, row in enumerate(csv.reader(file), start=1) if any(map(str.strip, row))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"cannot read {path} as text in UTF-8: {error}; save it as a CSV file in UTF-8") from error
    lines, names = _without_names(lines)
    if not lines:
        raise ValueError(f"{path} is empty: expected one event a line, with its values separated by commas")
    lines = _without_row_names(lines, names)
    table = np.array([_values(path, number, row, width=len(lines[0][1])) for number, row in lines])
    counts = np.arange(len(table))
    if len(table) > 2 and table.shape[1] > 1 and any(np.array_equal(table[:, 0], counts + first) for first in (0, 1)):
        name = f" {names[0]!r}" if names else ""
        warnings.warn(
            f"{path}: the first column{name} counts the rows and is read as a coordinate of the events; if it is only "
            "a count, remove it from the file",
            stacklevel=2,
        )
    return table


def _without_names(lines: _Lines) -> tuple[_Lines, list[str]]:
    """Return the lines below the names of the columns, and these names, if there are any."""
    if not lines:
        return [], []
    first = [cell.strip() for cell in lines[0][1]]
    if not any(map(_is_number, first)):
        return lines[1:], first
    named = first[1:] if first[0] in _NO_NAME else first
    if named != [str(place) for place in range(len(named))]:
        return lines, []
    # "0,1" are pandas' names of unnamed columns, unless all values are integers, so that it may be an event as well
    whole = all(cell.strip().lstrip("+-").isdigit() for _, row in lines[1:] for cell in row)
    if whole and first[0] not in _NO_NAME:
        return lines, []
    return lines[1:], first


def _without_row_names(lines: _Lines, names: list[str]) -> _Lines:
    """Return the lines without a first column that has no name; R leaves the name out together with its comma."""
    if not names or len(lines[0][1]) < 2:
        return lines
    unnamed = names[0] in _NO_NAME and len(names) == len(lines[0][1])
    shorter = len(names) == len(lines[0][1]) - 1
    return [(number, row[1:]) for number, row in lines] if unnamed or shorter else lines


def _values(path: Path, number: int, row: list[str], *, width: int) -> list[float]:
    place = f"{path}, line {number}"
    if len(row) != width:
        raise ValueError(f"{place}: expected {width} values, received {len(row)}")
    for cell in row:
        if _is_number(cell):
            continue
        if not cell.strip():
            raise ValueError(f"{place}: expected a number, received an empty cell; fill it or remove the line")
        for separator, words in _OTHER_SEPARATORS.items():
            if all(map(_is_number, cell.replace(",", ".").split(separator))):
                raise ValueError(
                    f"{place}: expected values separated by commas, received {cell!r}, which is separated by {words}"
                )
        raise ValueError(f"{place}: expected a number, received {cell!r}")
    return [float(cell) for cell in row]


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
