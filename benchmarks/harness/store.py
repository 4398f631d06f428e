"""The file of finished runs: one line of JSON each, appended as soon as a run ends."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["Store"]


class Store:
    """Finished runs, in a file or in memory alone.

    A run is one line, written whole after it ended, so that a benchmark may be stopped at any time. If the machine
    stops in the middle of a line, that line is dropped with a warning, and its run is repeated.

    Args:
        path: The file, made with its folder when the first run ends; None keeps runs in memory.

    Raises:
        ValueError: If a line other than an unfinished last one is no run.

    Example:
        >>> store = Store(None)
        >>> store.append({"name": "8gaussians", "seed": 0, "gap": 0.001})
        >>> [run["name"] for run in store.runs]
        ['8gaussians']
    """

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self.runs: list[Mapping[str, Any]] = [] if path is None or not path.exists() else _read(path)

    def append(self, run: Mapping[str, Any]) -> None:
        """Keep a run that ended.

        Raises:
            TypeError: If JSON cannot hold a figure of it.
        """
        line = json.dumps(run)
        if self.path is not None:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            _finish_last_line(self.path)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
        self.runs.append(json.loads(line))  # as it is read again: tuples are lists then


def _read(path: Path) -> list[Mapping[str, Any]]:
    """All runs of a file, without an unfinished last line."""
    text = path.read_text(encoding="utf-8")
    lines, runs = text.split("\n"), []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        run = _parsed(line)
        if run is not None:
            runs.append(run)
        elif number == len(lines):  # nothing ended it: it was being written
            warnings.warn(f"dropped the unfinished last line of {path}; its run will be repeated", stacklevel=3)
        else:
            raise ValueError(
                f"expected a run as a JSON object in line {number} of {path}, got {line[:60]!r}; delete it"
            )
    return runs


def _parsed(line: str) -> Mapping[str, Any] | None:
    """The JSON object of a line, or None if there is none."""
    try:
        run = json.loads(line)
    except json.JSONDecodeError:
        return None
    return run if isinstance(run, dict) else None


def _finish_last_line(path: Path) -> None:
    """Make a file end with a whole line: an unfinished one is cut off, one that lacks only its end gets it."""
    if not path.exists():
        return
    content = path.read_bytes()
    if not content or content.endswith(b"\n"):
        return
    start = content.rfind(b"\n") + 1
    with path.open("r+b") as file:
        if _parsed(content[start:].decode("utf-8", errors="replace")) is None:
            file.truncate(start)
        else:
            file.seek(0, 2)
            file.write(b"\n")
