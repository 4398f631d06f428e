"""Files of events that are read a few rows at a time instead of at once, because of their form or their size."""

from __future__ import annotations

import math
from pathlib import Path

from pyro_gflows.datasets.file_rows import FileRows
from pyro_gflows.datasets.files import is_file_name
from pyro_gflows.datasets.mapped import mapped_array
from pyro_gflows.datasets.opening import TABLES, open_rows

__all__ = ["LARGE", "is_path", "opened_rows"]

LARGE = 2**26
"""Files of more entries are not read at once: about 67 million, 256 MB in float32."""


def is_path(name: str) -> bool:
    """Return whether a name is the path of a file or folder of events, by its ending or because the folder exists.

    Args:
        name: The name of a data set, or a path.

    Example:
        >>> is_path("events.parquet"), is_path("rings")
        (True, False)
    """
    return is_file_name(name) or Path(name).suffix.lower() in (*TABLES, ".zarr") or Path(name).is_dir()


def opened_rows(name: str, *, key: str | None = None) -> FileRows | None:
    """Return the rows of a folder, a table, a Zarr array or a large ``.npy`` file; None for names of anything else.

    Args:
        name: The name of a data set, or the path of a file or a folder.
        key: The name of the array in a Zarr group.

    Raises:
        ValueError: If the file cannot be used.

    Example:
        >>> opened_rows("rings") is None
        True
    """
    path = Path(name)
    if path.is_dir() or path.suffix.lower() in (*TABLES, ".zarr"):
        return open_rows(path, key=key)
    return open_rows(path) if key is None and path.suffix.lower() == ".npy" and _is_large(path) else None


def _is_large(path: Path) -> bool:
    try:
        return path.is_file() and math.prod(mapped_array(path).shape) > LARGE
    except ValueError:  # the reader of small files says what is wrong
        return False
