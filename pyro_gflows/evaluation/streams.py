"""A task that is done in shards, by one process or several, and that can be stopped and gone on with."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from tqdm import tqdm

from pyro_gflows.datasets.processes import Processes, on_all, on_first
from pyro_gflows.evaluation.shards import MOST_SHARDS, ShardRecord, Shards
from pyro_gflows.evaluation.stream_settings import StreamSettings
from pyro_gflows.nn.modes import evaluating
from pyro_gflows.numerics.random_state import random_state_kept, seed_of_rank

__all__ = ["Stream"]


class Stream:
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
        if output is not None and settings.shards(count) > MOST_SHARDS:
            raise ValueError(
                f"expected at most {MOST_SHARDS:,} shards, got {settings.shards(count):,} for {count:,} rows; raise "
                f"shard_rows (now {settings.shard_rows})"
            )

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
