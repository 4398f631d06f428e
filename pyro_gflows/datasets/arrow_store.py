"""Tables of numeric columns in Parquet and Arrow files, which pyarrow reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

__all__ = ["ARROW_ENDINGS", "PARQUET_ENDINGS", "ArrowStore"]

PARQUET_ENDINGS = (".parquet", ".pq")
ARROW_ENDINGS = (".arrow", ".feather", ".ipc")


class ArrowStore:
    """Tables in Parquet files, or in Arrow files (Feather), one after the other; a part is a row group or a batch.

    The events are the numeric columns, in their order, or the lists of one size in a single column.

    Args:
        path: The file, or the folder of the files.
        files: The files, in their order.
        columns: The columns to read; by default all.

    Raises:
        ImportError: If pyarrow is not installed.
        ValueError: If a file cannot be read, if it lacks a column, or if its columns have other types than those of the
            first file.
        TypeError: If a column holds something else than real values.
    """

    is_mapped = False

    def __init__(self, path: Path, files: Sequence[Path], columns: Sequence[str] | None = None) -> None:
        self.path = path
        self.kind = "Parquet" if files[0].suffix.lower() in PARQUET_ENDINGS else "Arrow"
        self._parts: list[tuple[Path, int]] = []
        lengths: list[int] = []
        types: dict[str, Any] = {}
        for file in files:
            opened = _opened(file)
            found = _types(opened.schema, columns, file=file)
            types = types or found
            if found != types:
                raise ValueError(
                    f"{file} has the columns {_described(found)}, but {files[0].name} has {_described(types)}: "
                    f"expected the same ones in all files of {path}"
                )
            self._parts += [(file, number) for number in range(len(opened.lengths))]
            lengths += opened.lengths
        self.columns = tuple(types)
        self.event_shape, self.dtype = _events_of(types, file=files[0])
        self.lengths = tuple(lengths or [0])

    def read(self, part: int) -> np.ndarray:
        """Decode a row group or a batch.

        Args:
            part: Its number, over all files.

        Raises:
            ValueError: If a value is missing where NaN cannot stand for it, or if the file cannot be read.
        """
        file, number = self._parts[part]
        table = _opened(file).part(number, list(self.columns))
        features = [_values(table.column(name).combine_chunks(), self.dtype, file=file) for name in self.columns]
        events = features[0] if len(features) == 1 else np.stack(features, -1)
        return events.reshape(len(table), *self.event_shape)


class _ParquetFile:
    """The parts of a Parquet file: its row groups."""

    def __init__(self, file: Path) -> None:
        import pyarrow.parquet

        self._opened = pyarrow.parquet.ParquetFile(file)
        self.schema = self._opened.schema_arrow
        about = self._opened.metadata
        self.lengths = [about.row_group(number).num_rows for number in range(about.num_row_groups)]

    def part(self, number: int, columns: list[str]) -> Any:
        return self._opened.read_row_group(number, columns=columns)


class _ArrowFile:
    """The parts of an Arrow file: its batches."""

    def __init__(self, file: Path) -> None:
        import pyarrow.ipc

        self._opened = pyarrow.ipc.open_file(pyarrow.memory_map(str(file)))
        self.schema = self._opened.schema
        self.lengths = [self._opened.get_batch(number).num_rows for number in range(self._opened.num_record_batches)]

    def part(self, number: int, columns: list[str]) -> Any:
        import pyarrow

        return pyarrow.Table.from_batches([self._opened.get_batch(number)]).select(columns)


def _opened(file: Path) -> _ParquetFile | _ArrowFile:
    pyarrow = _pyarrow(file)
    try:
        return _ParquetFile(file) if file.suffix.lower() in PARQUET_ENDINGS else _ArrowFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"cannot read {file}: {error}") from error


def _pyarrow(file: Path) -> ModuleType:
    try:
        import pyarrow
    except ImportError as error:
        raise ImportError(f"pyarrow reads {file.name}: pip install 'pyro-gflows[files]'") from error
    return pyarrow


def _types(schema: Any, columns: Sequence[str] | None, *, file: Path) -> dict[str, Any]:
    """The types of the columns that are read, by their names."""
    names = list(schema.names) if columns is None else list(columns)
    if not names:
        raise ValueError(f"{file} has no columns" if columns is None else f"expected columns of {file}, got none")
    for name in names:
        if name not in schema.names:
            raise ValueError(f"{file} has no column {name!r}; its columns are {', '.join(schema.names)}")
    return {name: schema.field(name).type for name in names}


def _events_of(types: dict[str, Any], *, file: Path) -> tuple[tuple[int, ...], np.dtype]:
    """The shape of an event that the columns make, and its dtype."""
    import pyarrow.types as kinds

    shapes, dtypes = {}, []
    for name, kind in types.items():
        shape: tuple[int, ...] = ()
        value = kind
        while kinds.is_fixed_size_list(value):
            shape, value = (*shape, value.list_size), value.value_type
        if not (kinds.is_integer(value) or kinds.is_floating(value) or kinds.is_boolean(value)):
            raise TypeError(
                f"{file}: expected columns of real values, or of lists of one size, but {name!r} holds {kind}; name "
                "the columns to read: open_rows(path, columns=[...])"
            )
        shapes[name] = shape
        dtypes.append(np.dtype(value.to_pandas_dtype()))
    listed = [name for name, shape in shapes.items() if shape]
    if listed and len(shapes) > 1:
        raise TypeError(
            f"{file}: expected one column of lists, or columns of numbers, but {listed[0]!r} holds lists beside "
            f"{len(shapes) - 1} other columns; name the one to read: open_rows(path, columns=[{listed[0]!r}])"
        )
    return shapes[listed[0]] if listed else (len(shapes),), np.result_type(*dtypes)


def _values(column: Any, dtype: np.dtype, *, file: Path) -> np.ndarray:
    """The values of a column in one row; a missing one is NaN."""
    while hasattr(column.type, "list_size"):
        if column.null_count:
            raise ValueError(f"{file} has {column.null_count} rows without a list: remove these rows")
        column = column.flatten()
    if column.null_count and dtype.kind != "f":
        raise ValueError(f"{file} has {column.null_count} missing values: remove these rows")
    return np.asarray(column.to_numpy(zero_copy_only=False), dtype)


def _described(types: dict[str, Any]) -> str:
    return ", ".join(f"{name}: {kind}" for name, kind in types.items())
