"""Shards: arrays that are written one part after the other, by one process or several, and can be gone on with."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from pyro_gflows.serialization.files import check_writable, read_json, write_json

__all__ = ["MOST_SHARDS", "ArrayWriter", "ShardRecord", "Shards", "output_of"]

MOST_SHARDS = 10**5
"""Their numbers have five digits, so that their names are in order."""

_ROWS_OF_TEXT = 4096  # that are written to a .csv file at a time


@dataclass(frozen=True)
class ShardRecord:
    """What is known about a shard that is done.

    Attributes:
        rows: The number of its rows.
        total: The sum over its rows; 0 for samples.
    """

    rows: int
    total: float = 0.0


class Shards:
    """A folder of shards: ``shard-00000.npy``, ``shard-00001.npy``, ...

    Beside each array lies a hidden JSON file, which is written last: what the shard was computed from, and the sum of
    its rows. So a run that was stopped goes on with the shards that are missing, and never takes those of another run
    for its own. Both files are renamed into place when they are complete.

    Args:
        folder: The folder.
        ends: The file into which all shards are joined at the end, before the folder is removed; None to keep them.
    """

    def __init__(self, folder: Path, ends: Path | None = None) -> None:
        self.folder = folder
        self.ends = ends

    def start(self, identity: Mapping[str, Any], *, resume: bool) -> dict[int, ShardRecord]:
        """Return the shards that are done already, after a check that all others may be written.

        Args:
            identity: What the shards are computed from.
            resume: Whether to go on with those that are there; otherwise there must be none.

        Raises:
            ValueError: The folder cannot be written to, holds shards although the run is new, or holds those of another
                run; the message says in what it differs.
        """
        if self.ends is not None and not resume:
            shutil.rmtree(self.folder, ignore_errors=True)
        check_writable(self.folder)
        for left in self.folder.glob(".shard-*.tmp"):  # by a process that was killed
            left.unlink()
        if not resume:
            if any(self.folder.glob("shard-*.npy")):
                raise ValueError(
                    f"{self.folder} holds shards already; take another folder, or go on with them: resume=True"
                )
            return {}
        records = {int(path.stem.split("-")[1]): read_json(path) for path in self.folder.glob(".shard-*.json")}
        for number, record in sorted(records.items()):
            other = [name for name, value in identity.items() if record["identity"].get(name) != value]
            if other:
                raise ValueError(
                    f"cannot resume: {self.ends or self.folder} was begun with another {' and another '.join(other)} "
                    f"(shard {number}: {', '.join(str(record['identity'].get(name)) for name in other)}; now: "
                    f"{', '.join(str(identity[name]) for name in other)}); give the same, or start anew elsewhere"
                )
        return {
            number: ShardRecord(record["rows"], float(record["total"]))
            for number, record in records.items()
            if self._array(number).exists()
        }

    @contextlib.contextmanager
    def write(self, number: int, rows: int) -> Iterator[ArrayWriter]:
        """A context in which the blocks of a shard are written, one after the other.

        Args:
            number: The number of the shard.
            rows: The number of its rows.
        """
        with _replacing(self._array(number)) as file:
            yield ArrayWriter(file, rows)

    def done(self, number: int, record: ShardRecord, identity: Mapping[str, Any]) -> None:
        """Note that a shard is complete.

        Args:
            number: The number of the shard.
            record: Its rows and their sum.
            identity: What it was computed from.
        """
        about = {"identity": dict(identity), "rows": record.rows, "total": repr(record.total)}  # JSON has no infinity
        write_json(self.folder / f".shard-{number:05d}.json", about)

    def finish(self, records: Mapping[int, ShardRecord]) -> None:
        """Join all shards into one file, if that is wanted.

        Args:
            records: All shards.
        """
        if self.ends is None:
            return
        with _replacing(self.ends) as file:
            joined = ArrayWriter(file, sum(record.rows for record in records.values()))
            for number in sorted(records):
                array = np.load(self._array(number), mmap_mode="r")
                for start in range(0, len(array), _ROWS_OF_TEXT):
                    block = np.array(array[start : start + _ROWS_OF_TEXT])
                    if self.ends.suffix == ".csv":
                        np.savetxt(file, block.reshape(len(block), -1), delimiter=",")
                    else:
                        joined(block)
        shutil.rmtree(self.folder)

    def _array(self, number: int) -> Path:
        return self.folder / f"shard-{number:05d}.npy"


class ArrayWriter:
    """Writes a ``.npy`` file of a known number of rows a block at a time; the same bytes as :func:`numpy.save`.

    Args:
        file: The file, empty.
        rows: The number of rows of all blocks together.
    """

    def __init__(self, file: BinaryIO, rows: int) -> None:
        self._file = file
        self._rows = rows
        self._begun = False

    def __call__(self, block: np.ndarray) -> None:
        """Write the next rows.

        Args:
            block: The rows, all blocks of one shape and dtype.
        """
        block = np.ascontiguousarray(block)
        if not self._begun:
            header = np.lib.format.header_data_from_array_1_0(block)
            header["shape"] = (self._rows, *block.shape[1:])
            np.lib.format.write_array_header_1_0(self._file, header)
            self._begun = True
        self._file.write(block.data)


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of another one when it is complete, and is removed after an error."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def output_of(out: str | Path) -> Shards:
    """The shards of a folder, or those that are joined into one ``.npy`` or ``.csv`` file at the end.

    Args:
        out: The path of the folder or of the file.

    Raises:
        ValueError: It has another ending, or its folder does not exist.
    """
    path = Path(out)
    if not path.parent.is_dir():
        raise ValueError(f"no such folder for the output: {path.parent}")
    if path.is_dir() or not path.suffix:
        return Shards(path)
    if path.suffix not in (".npy", ".csv"):
        raise ValueError(f"expected the output to end in .npy or .csv, or to be a folder for shards, got {out}")
    return Shards(path.with_name(f".{path.name}.shards"), path)
