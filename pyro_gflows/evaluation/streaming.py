"""Scoring and sampling of any number of events in constant memory, in shards that several processes share."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from pyro_gflows.datasets.checks import as_events, check_rows
from pyro_gflows.datasets.processes import Processes
from pyro_gflows.datasets.rows import FileRows, Rows, as_rows
from pyro_gflows.datasets.samples import rows_fingerprint
from pyro_gflows.evaluation.shards import output_of
from pyro_gflows.evaluation.stream_settings import ScoreReport, StreamSettings
from pyro_gflows.evaluation.streams import Stream
from pyro_gflows.flows.equivariant_flow import EquivariantFlow

__all__ = ["sample_rows", "score_rows"]

_DRAWN = (1024, 2**18)  # so many rows, or entries, are drawn at a time


def score_rows(
    flow: nn.Module,
    rows: Tensor | np.ndarray | str | Path | Rows,
    *,
    out: str | Path | None = None,
    prepare: Callable[[Tensor, torch.Generator], Tensor] | None = None,
    settings: StreamSettings | None = None,
    processes: Processes | None = None,
) -> ScoreReport:
    """Scores events of any number under a flow, in memory that does not grow with them.

    The events are read and scored a batch at a time, in evaluation mode and without gradients, as :func:`log_probs`
    does. With ``out`` the log-densities are written too, float64, one a row: into a folder as ``shard-00000.npy`` and
    so on, or into one ``.npy`` or ``.csv`` file, which appears when all is done. A run that was stopped goes on with
    ``StreamSettings(resume=True)``.

    Several processes each score some of the shards. The result does not depend on their number, to the last bit where
    they compute alike: on devices of one kind, with the same number of threads.

    Args:
        flow: A module whose forward is its log-density.
        rows: Events, shape ``(rows,) + event_shape``: a tensor, an array (also a memory-mapped one), the path of a file
            or folder of files that :func:`~pyro_gflows.datasets.open_rows` reads, or what it returns.
        out: The folder, or the ``.npy`` or ``.csv`` file, for the log-densities.
        prepare: A function ``prepare(block, generator) -> events`` for rows that are not the events themselves, such as
            gray levels that are dequantized.
        settings: The size of shards and batches, the seed, and whether to resume.
        processes: The processes that share the work, each of which calls this function; by default this one alone.

    Raises:
        ValueError: There are no rows, a row is not finite, or the shards in ``out`` are of another run.
        TypeError: The rows are not floating-point.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> report = score_rows(flow, torch.zeros(1000, 2))
        >>> report.rows, round(report.nll, 4)  # log(2 pi)
        (1000, 1.8379)
    """
    settings = settings or StreamSettings()
    rows = as_rows(rows)
    source = str(rows.store.path) if isinstance(rows, FileRows) else "rows"
    count = len(rows)
    if prepare is None:
        check_rows(rows, event_shape=getattr(getattr(flow, "action", None), "event_shape", None), source=source)
    elif count == 0:
        raise ValueError(f"{source} is empty: expected rows of events, got none")
    read = _Reader(rows, prepare, source)

    def scores(numbers: range, generator: torch.Generator) -> Iterator[np.ndarray]:
        for batch in _batches(numbers, settings.batch_size):
            yield flow(as_events(read(batch, generator), flow, source=source)).cpu().double().numpy()

    stream = Stream("score", scores, count, settings=settings, output=None if out is None else output_of(out))
    records, resumed = stream.run(flow, processes or Processes(), data=lambda: rows_fingerprint(rows))
    return ScoreReport(count, math.fsum(record.total for record in records.values()), len(records), resumed)


def sample_rows(
    flow: EquivariantFlow,
    n: int,
    out: str | Path,
    *,
    finish: Callable[[Tensor], np.ndarray] | None = None,
    settings: StreamSettings | None = None,
    processes: Processes | None = None,
) -> None:
    """Draws any number of samples of a flow and writes them, in memory that does not grow with their number.

    They are written as :func:`score_rows` writes log-densities: into a folder of shards, or into one ``.npy`` or
    ``.csv`` file. Each shard has random draws of its own, so the samples do not depend on the number of processes or on
    an interruption; those of a GPU are others than those of the CPU.

    Args:
        flow: A flow.
        n: The number of samples.
        out: The folder, or the ``.npy`` or ``.csv`` file, for the samples.
        finish: A function from samples to the array that is written, such as gray levels.
        settings: The size of shards, the seed, and whether to resume.
        processes: The processes that share the work, each of which calls this function; by default this one alone.

    Raises:
        ValueError: n is not positive, or the shards in ``out`` are of another run.

    Example:
        >>> import tempfile
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> folder = Path(tempfile.mkdtemp()) / "samples"
        >>> sample_rows(flow, 2500, folder, settings=StreamSettings(shard_rows=1000))
        >>> [np.load(path).shape for path in sorted(folder.glob("*.npy"))]
        [(1000, 2), (1000, 2), (500, 2)]
    """
    settings = settings or StreamSettings()
    if not isinstance(n, int) or n < 1:
        raise ValueError(f"expected a positive number of samples, got {n!r}")
    fewest, entries = _DRAWN
    size = max(fewest, entries // flow.action.numel)

    def draws(numbers: range, _: torch.Generator) -> Iterator[np.ndarray]:
        for batch in _batches(numbers, size):
            drawn = flow.dist.sample((len(batch),))
            yield drawn.cpu().numpy() if finish is None else finish(drawn)

    stream = Stream("sample", draws, n, settings=settings, output=output_of(out))
    stream.run(flow, processes or Processes())


class _Reader:
    """Reads the events of a range of rows.

    Args:
        rows: The rows.
        prepare: A function from a block of rows to events.
        source: How the error messages call the rows.
    """

    def __init__(self, rows: Rows, prepare: Callable[[Tensor, torch.Generator], Tensor] | None, source: str) -> None:
        self.rows = rows
        self.prepare = prepare
        self.source = source

    def __call__(self, numbers: range, generator: torch.Generator) -> Tensor:
        block = self.rows.take(torch.arange(numbers.start, numbers.stop))
        finite = block.flatten(1).isfinite().all(-1)
        if not finite.all():
            row = int((~finite).nonzero()[0])
            values = block[row].flatten()
            raise ValueError(
                f"{self.source}: row {numbers[row]} holds {values[~values.isfinite()][0].item()}: remove or repair "
                "such rows"
            )
        return block if self.prepare is None else self.prepare(block, generator)


def _batches(numbers: range, size: int) -> Iterator[range]:
    return (numbers[start : start + size] for start in range(0, len(numbers), size))
