"""Opens files of events that may be larger than the memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pyro_gflows.datasets.file_rows import FileRows, Store
from pyro_gflows.datasets.npy_store import NpyStore

__all__ = ["open_rows"]

_NPY = (".npy",)


def open_rows(path: str | Path) -> FileRows:
    """Open a file of events, or a folder of such files, that may be larger than the memory.

    Nothing is read but what describes the events. The rows are read a batch at a time, by :func:`fit`, :func:`nll` and
    whatever else takes :class:`Rows`.

    Args:
        path: A ``.npy`` file, which is memory-mapped, or a folder of ``.npy`` files (shards), which are joined in the
            order of their names; they may have different numbers of rows.

    Raises:
        ValueError: If there is no such file, if it cannot be read or holds no rows, or if the files of a folder do not
            hold events of the same shape and dtype; the message names the file.
        TypeError: If a file holds something else than real values.

    Example:
        >>> import tempfile
        >>> import numpy as np
        >>> file = Path(tempfile.mkdtemp()) / "events.npy"
        >>> np.save(file, np.zeros((1000, 2), dtype=np.float32))
        >>> rows = open_rows(file)
        >>> len(rows), rows.event_shape, rows.dtype
        (1000, (2,), torch.float32)
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"no such file or folder of data: {path}")
    rows = FileRows(_store(path))
    if len(rows) == 0:
        raise ValueError(f"{path} is empty: expected rows of events, got none")
    return rows


def _store(path: Path) -> Store:
    files = [path] if path.is_file() else _files_of(path)
    makers: dict[str, Callable[[Path, Sequence[Path]], Store]] = dict.fromkeys(_NPY, NpyStore)
    ending = files[0].suffix.lower()
    for file in files:
        if file.suffix.lower() not in makers:
            raise ValueError(
                f"{file} ends in {file.suffix!r}: expected {', '.join(makers)}; a .npz or .csv file is read as a whole "
                "by load_array"
            )
        if file.suffix.lower() != ending:
            raise ValueError(f"expected files of one kind in {path}, got {files[0].name} and {file.name}")
    return makers[ending](path, files)


def _files_of(folder: Path) -> list[Path]:
    """The files of a folder by name, without hidden ones and what tools write beside the data (``_SUCCESS``)."""
    files = sorted(file for file in folder.iterdir() if file.name[0] not in "._")
    if not files:
        raise ValueError(f"{folder} is empty: expected files of events in it")
    return files
