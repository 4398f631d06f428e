"""CPU time of ``fit`` and ``fit_energy`` on one device, over that of an earlier version of this package.

    git worktree add /tmp/earlier TAG
    python -m benchmarks.earlier --tree /tmp/earlier      # prints the table; nothing is kept

Each version runs in an interpreter of its own. Both stay alive and alternate in fits of the same seed, so that a
machine that slows down for a while slows both. A ratio is the median over rounds of CPU time, with quartiles; "the
least" is the ratio of the least times of both, which other programs disturb least. The row "twice the same" has this
version on both sides and tells how far a ratio is from 1 by chance.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness import Benchmark, Column, columns, main

ROOT = Path(__file__).parents[1]
ROUNDS = 120
TREE: dict[str, Path] = {"earlier": ROOT}  # set by the option

# Run by both versions: reads a number of steps from each line, and answers with the CPU seconds of a fit
WORKER = """
import sys, time, warnings
import torch
from pyro_gflows import *
from pyro_gflows.training import *
torch.set_num_threads(1)
warnings.simplefilter("ignore")
name, batch = sys.argv[1], int(sys.argv[2])
action = VectorAction.regular("C4", copies=4)
make = {
    "coupling": lambda: g_coupling(action),
    "autoregressive": lambda: g_autoregressive(action),
    "residual": lambda: g_residual(action),
    "energy": lambda: g_residual(action, fast="sample"),
}[name]
x = torch.randn(8192, 16, generator=torch.Generator().manual_seed(0))
for line in sys.stdin:
    steps = int(line)
    torch.manual_seed(0)
    flow = EquivariantFlow(InvariantNormal(action), [t for _ in range(2) for t in (GActNorm(action), make())])
    settings = FitSettings(steps=steps, batch_size=batch, check_symmetry=False)
    began = time.process_time()
    if name == "energy":
        fit_energy(flow, lambda x: -x.square().sum(-1), settings=settings, progress=False)
    else:
        fit(flow, x, settings=settings, progress=False)
    print(time.process_time() - began, flush=True)
"""


@dataclass(frozen=True)
class Row:
    """One flow with one size of batch."""

    flow: str
    batch: int
    steps: int
    is_control: bool = False

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.flow} {self.batch}{', twice the same' if self.is_control else ''}"

    def labels(self) -> Mapping[str, Any]:
        """All of it."""
        return {"name": self.name}


class Version:
    """An interpreter with one version of the package, which waits for fits to do."""

    def __init__(self, tree: Path, row: Row) -> None:
        environment = {**os.environ, "PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-c", WORKER, row.flow, str(row.batch)],
            env=environment,
            cwd=tree,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self, steps: int) -> float:
        """CPU seconds of a fit of so many steps."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{steps}\n")
        self._process.stdin.flush()
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the interpreter."""
        self._process.communicate()


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The ratio with its quartiles, and that of the least times."""
    now, earlier = Version(ROOT, row), Version(ROOT if row.is_control else TREE["earlier"], row)
    pairs = []
    try:
        for number in range(4 if quick else ROUNDS + 1):
            first, second = (now, earlier) if number % 2 else (earlier, now)
            times = {id(version): version.seconds(2 if quick else row.steps) for version in (first, second)}
            if number:  # the first round warms up
                pairs.append((times[id(now)], times[id(earlier)]))
    finally:
        now.close()
        earlier.close()
    return {
        "ratio": statistics.quantiles([ours / theirs for ours, theirs in pairs], n=4),
        "least": min(ours for ours, _ in pairs) / min(theirs for _, theirs in pairs),
        "ms": 1e3 * statistics.median(ours for ours, _ in pairs) / row.steps,
    }


def ratio(found: Any) -> str:
    """The median with its quartiles."""
    low, middle, high = found["ratio"]
    return f"{middle:.3f} ({low:.3f} to {high:.3f})"


def more_options(parser: argparse.ArgumentParser) -> None:
    """The folder of the earlier version."""
    parser.add_argument("--tree", type=Path, required=True, metavar="FOLDER", help="a checkout of the earlier version")


ROWS = [
    Row("coupling", 256, 15),
    Row("coupling", 256, 15, is_control=True),
    Row("autoregressive", 64, 25),
    Row("residual", 256, 10),
    Row("energy", 64, 10),
]


def choose(options: argparse.Namespace) -> list[Row]:
    """All rows, against the version in the folder."""
    TREE["earlier"] = options.tree.resolve()
    return ROWS


BENCHMARK = Benchmark(
    "earlier",
    __doc__,
    ROWS,
    run,
    columns(
        Column("fit", lambda found: str(found["name"]), left=True),
        Column("CPU ms a step", lambda found: f"{found['ms']:.2f}"),
        Column("over the earlier version", ratio),
        Column("the least", lambda found: f"{found['least']:.3f}"),
        Column("load", lambda found: f"{found['load']:.1f}"),
    ),
    kept=False,
    more_options=more_options,
    choose=choose,
)

if __name__ == "__main__":
    main(BENCHMARK)
