"""All comparisons, on the CPU and on a CUDA device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from benchmarks.peers import images, race, residual, vectors

__all__ = ["ROWS", "Comparison"]


class Comparison(Protocol):
    """A row: a ``Contest``, or a ``Race`` for equal time."""

    family: str
    task: str
    device: str

    @property
    def name(self) -> str: ...

    def labels(self) -> Mapping[str, Any]: ...

    def on(self, device: str) -> Comparison: ...

    def measure(self, *, quick: bool) -> dict[str, Any]: ...


_ALL: Sequence[Any] = [*vectors.CONTESTS, *residual.CONTESTS, *images.CONTESTS, *race.RACES]
ROWS: Sequence[Any] = [row.on(device) for device in ("cpu", "cuda") for row in _ALL]
