"""Scoring and sampling of any number of events in constant memory, in shards that several processes share."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyro_gflows.datasets.checks import as_events, check_rows
from pyro_gflows.datasets.processes import OneProcess, Processes, on_all, on_first
from pyro_gflows.datasets.rows import FileRows, Rows, as_rows
from pyro_gflows.datasets.samples import rows_fingerprint
from pyro_gflows.evaluation.shards import ShardRecord, Shards, output_of
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn.modes import evaluating
from pyro_gflows.numerics.random_state import random_state_kept, seed_of_rank

__all__ = ["ScoreReport", "StreamSettings", "sample_rows", "score_rows"]

_DRAWN = (1024, 2**18)  # so many rows, or entries, are drawn at a time


@dataclass(frozen=True)
class StreamSettings:
    """How events are scored or drawn in shards.

    Args:
        shard_rows: The number of rows of a shard. Each shard has random draws of its own, so that neither the number of
            processes nor an interruption changes the result; another number of rows does where something is random.
        batch_size: The number of events that are scored at a time.
        seed: The seed of all random draws; the first shard has the seed itself.
        resume: Whether to go on with the shards that an earlier run has left, which must have had the same flow, data
            and settings.
        progress: Whether to show a progress bar, where the standard error is a terminal.

    Raises:
        ValueError: A number of rows is not positive.

    Example:
        >>> StreamSettings(shard_rows=1000).shards(2500)
        3
    """

    shard_rows: int = 2**17
    batch_size: int = 1024
    seed: int = 0
    resume: bool = False
    progress: bool = False

    def __post_init__(self) -> None:
        for name in ("shard_rows", "batch_size"):
            value = getattr(self, name)
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"expected {name} >= 1, got {value!r}")

    def shards(self, rows: int) -> int:
        """The number of shards.

        Args:
            rows: The number of rows of all shards together.
        """
        return -(-rows // self.shard_rows)

    def rows(self, shard: int, count: int) -> range:
        """The numbers of the rows of a shard.

        Args:
            shard: The number of the shard.
            count: The number of rows of all shards together.
        """
        return range(shard * self.shard_rows, min((shard + 1) * self.shard_rows, count))


@dataclass(frozen=True)
class ScoreReport:
    """The result of :func:`score_rows`.

    Attributes:
        rows: The number of events.
        total: The sum of their log-densities in nats, added in float64 without loss of digits (:func:`math.fsum`).
        shards: The number of shards.
        resumed: The number of shards that an earlier run had done.

    Example:
        >>> ScoreReport(rows=4, total=-6.0, shards=1).nll
        1.5
    """

    rows: int
    total: float
    shards: int
    resumed: int = 0

    @property
    def nll(self) -> float:
        """The mean negative log-density in nats."""
        return -self.total / self.rows


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

    Several processes each score some of the shards. The result does not depend on their number, to the last bit.

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
            yield flow(as_events(read(batch, generator), flow, source=source)).double().cpu().numpy()

    stream = _Stream("score", scores, count, settings=settings, output=None if out is None else output_of(out))
    records, resumed = stream.run(flow, processes or OneProcess(), data=lambda: rows_fingerprint(rows))
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
    an interruption.

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

    stream = _Stream("sample", draws, n, settings=settings, output=output_of(out))
    stream.run(flow, processes or OneProcess())


class _Stream:
    """A task that is done in shards.

    Args:
        name: What is done.
        blocks: A function from the numbers of rows and a random generator to the arrays for them, block by block.
        count: The number of rows.
        settings: The size of shards and the seed.
        output: Where the arrays are written; None sums them only.
    """

    def __init__(
        self,
        name: str,
        blocks: Callable[[range, torch.Generator], Iterator[np.ndarray]],
        count: int,
        *,
        settings: StreamSettings,
        output: Shards | None,
    ) -> None:
        self.name = name
        self.blocks = blocks
        self.count = count
        self.settings = settings
        self.output = output
        if settings.resume and output is None:
            raise ValueError("expected an output to resume from, got resume=True without out")

    def run(
        self, flow: nn.Module, processes: Processes, *, data: Callable[[], str] | None = None
    ) -> tuple[dict[int, ShardRecord], int]:
        """Return all shards, and the number of those that were done already.

        Args:
            flow: The flow, for its identity and its random draws.
            processes: The processes, each of which does some of the shards.
            data: A function that returns what distinguishes the data; None where there are none.
        """
        identity, done, output = {}, {}, self.output
        if output is not None:
            identity = on_first(processes, lambda: self._identity(flow, data))
            done = on_first(processes, lambda: output.start(identity, resume=self.settings.resume))
        left = [shard for shard in range(self.settings.shards(self.count)) if shard not in done]
        mine = left[processes.share.of(len(left))]
        new = on_all(processes, lambda: self._work(mine, flow, identity, is_first=processes.share.rank == 0))
        records = dict(done)
        for part in processes.gather(new):
            records |= part
        if output is not None:
            on_first(processes, lambda: output.finish(records))
        return records, len(done)

    def _work(
        self, shards: list[int], flow: nn.Module, identity: Mapping[str, Any], *, is_first: bool
    ) -> dict[int, ShardRecord]:
        settings, found = self.settings, {}
        rows = sum(len(settings.rows(shard, self.count)) for shard in shards)
        hide = None if settings.progress and is_first else True  # None hides it where there is no terminal
        with tqdm(total=rows, disable=hide, desc=self.name, unit="row", unit_scale=True) as bar, evaluating(flow):
            for shard in shards:
                numbers = settings.rows(shard, self.count)
                seed = seed_of_rank(settings.seed, shard)
                with random_state_kept(flow, seed=seed):
                    blocks = _counted(self.blocks(numbers, torch.Generator().manual_seed(seed)), bar)
                    found[shard] = self._shard(shard, len(numbers), blocks)
                if self.output is not None:
                    self.output.done(shard, found[shard], identity)
        return found

    def _shard(self, shard: int, rows: int, blocks: Iterator[np.ndarray]) -> ShardRecord:
        if self.output is None:
            return ShardRecord(rows, math.fsum(_sum(block) for block in blocks))
        sums = []
        with self.output.write(shard, rows) as write:
            for block in blocks:
                write(block)
                sums.append(_sum(block))
        return ShardRecord(rows, math.fsum(sums))

    def _identity(self, flow: nn.Module, data: Callable[[], str] | None) -> dict[str, Any]:
        return {
            "task": self.name,
            "flow": _digest_of_weights(flow),
            "data": "" if data is None else data(),
            "number of rows": self.count,
            "number of rows of a shard": self.settings.shard_rows,
            "seed": self.settings.seed,
        }


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


def _counted(blocks: Iterator[np.ndarray], bar: Any) -> Iterator[np.ndarray]:
    for block in blocks:
        yield block
        bar.update(len(block))


def _sum(block: np.ndarray) -> float:
    """The sum of log-densities, which is rounded once; 0 for samples."""
    return math.fsum(block.tolist()) if block.ndim == 1 else 0.0


def _digest_of_weights(flow: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(flow.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(_bytes(tensor))
    return digest.hexdigest()[:16]


def _bytes(tensor: Tensor) -> Any:
    return tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data
