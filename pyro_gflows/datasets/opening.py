"""Opens files of events that may be larger than the memory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pyro_gflows.datasets.arrow_store import ARROW_ENDINGS, PARQUET_ENDINGS, ArrowStore
from pyro_gflows.datasets.file_rows import FileRows, Store
from pyro_gflows.datasets.npy_store import NpyStore
from pyro_gflows.datasets.zarr_store import ZarrStore, is_zarr

__all__ = ["TABLES", "open_rows"]

TABLES = (*PARQUET_ENDINGS, *ARROW_ENDINGS)
_ENDINGS = (".npy", *TABLES)


def open_rows(path: str | Path, *, columns: Sequence[str] | None = None, key: str | None = None) -> FileRows:
    """Open a file of events, or a folder of such files, that may be larger than the memory.

    Nothing is read but what describes the events. The rows are read a batch at a time, by :func:`fit`, :func:`nll` and
    whatever else takes :class:`Rows`; these also take the path itself.

    There are three forms. Arrays in ``.npy`` files are read row by row. Tables in Parquet files (``.parquet``) or Arrow
    files (``.arrow``, ``.feather``), which need pyarrow, are decoded a row group at a time. Arrays in Zarr folders,
    which need zarr, are decoded a chunk at a time. A few row groups or chunks are then in memory, so these should not
    be large.

    Args:
        path: A file, or a folder of files of one kind with the same kind of events (shards), which are joined in the
            order of their names. They may have different numbers of rows. Hidden files and names that begin with ``_``
            are left out.
        columns: The columns of a table that make an event: numeric ones, or a single one with lists of one size; by
            default all columns.
        key: The name of the array in a Zarr group.

    Raises:
        ValueError: If there is no such file, if it cannot be read or holds no rows, or if the files of a folder do not
            hold events of the same shape and dtype; the message names the file.
        TypeError: If a file holds something else than real values.
        ImportError: If the library is missing that reads the file: ``pip install 'pyro-gflows[files]'``.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> file = Path(tempfile.mkdtemp()) / "events.npy"
        >>> np.save(file, np.zeros((1000, 2), dtype=np.float32))
        >>> rows = open_rows(file)
        >>> len(rows), rows.event_shape, rows.dtype
        (1000, (2,), torch.float32)
    """
    path = Path(path).absolute()  # it is read later, perhaps from another working directory
    if not path.exists():
        raise ValueError(f"no such file or folder of data: {path}")
    rows = FileRows(_store(path, columns, key))
    if len(rows) == 0:
        raise ValueError(f"{path} is empty: expected rows of events, got none")
    return rows


def _store(path: Path, columns: Sequence[str] | None, key: str | None) -> Store:
    if is_zarr(path):
        if columns is not None:
            raise ValueError(f"{path} is a Zarr array, which has no columns, received columns={list(columns)}")
        return ZarrStore(path, key)
    if key is not None:
        raise ValueError(f"only Zarr groups have keys, received key={key!r} for {path}")
    files = [path] if path.is_file() else _files_of(path)
    ending = files[0].suffix.lower()
    for file in files:
        if file.suffix.lower() not in _ENDINGS:
            raise ValueError(
                f"{file} ends in {file.suffix!r}: expected {', '.join(_ENDINGS)} or a Zarr folder; load_array reads "
                ".npz and .csv files as a whole"
            )
        if file.suffix.lower() != ending:
            raise ValueError(f"expected files of one kind in {path}, got {files[0].name} and {file.name}")
    if ending in TABLES:
        return ArrowStore(path, files, columns)
    if columns is not None:
        raise ValueError(f"{path} has arrays, which have no columns, received columns={list(columns)}")
    return NpyStore(path, files)


def _files_of(folder: Path) -> list[Path]:
    """The files of a folder by name, without hidden ones and what tools write beside the data (``_SUCCESS``)."""
    files = sorted(file for file in folder.iterdir() if file.name[0] not in "._")
    if not files:
        raise ValueError(f"{folder} is empty: expected files of events in it")
    return files
