"""What flows on rows that are permuted cost, for 100 to 10,000 rows, and for 6 rows beside a table of all permutations.

    python -m benchmarks.rows

CPU time of one thread in float32, of flows on rows of 3 features at their first weights, with batches of 4 events. A
flow has an actnorm, two layers of a kind with the default networks, and a learned base. In microseconds a row: making
the flow ("set-up", for the rows of one event), a log-density ("score"), a draw, and a training step by maximum
likelihood (log-density and gradient). The exponent is log10 of the time with 10,000 rows over that with 1,000 rows;
where it is 1 the time of a row does not depend on their number.

"S6 by structure" is the time with ``RowsAction(6, 3)`` over that with ``VectorAction.rows("S6", features=3)``, whose
networks hold a matrix for each of 720 permutations, with batches of 64 events: the median of rounds in which both are
timed, with the quartiles beside it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Run, cpu_seconds, grouped, interleaved_ratios, main, markdown
from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, RowsAction, VectorAction, g_coupling, g_residual

FEATURES, BATCH, BATCH_OF_SIX, ROUNDS = 3, 4, 64, 15
COUNTS = (100, 1_000, 10_000)
LAYERS: dict[str, Callable[[VectorAction], Any]] = {
    "coupling": g_coupling,
    "pooled residual": lambda action: g_residual(action, bound=0.9),
}
WORK = ("set-up", "score", "draw", "training step")


def flow_of(action: VectorAction, layer: str) -> EquivariantFlow:
    """An actnorm and two layers on a learned base."""
    base = InvariantNormal(action, covariance="isotypic", mean=True)
    return EquivariantFlow(base, [GActNorm(action), LAYERS[layer](action), LAYERS[layer](action)])


def works(make: Callable[[], VectorAction], layer: str, batch: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name."""
    action = make()
    flow = flow_of(action, layer)
    x = torch.randn(batch, action.numel, generator=torch.Generator().manual_seed(0))

    def score() -> Tensor:
        with torch.no_grad():
            return flow(x)

    def step() -> None:
        flow.zero_grad()
        (-flow(x).mean()).backward()

    found = (lambda: flow_of(make(), layer), score, lambda: flow.dist.sample((batch,)), step)
    return dict(zip(WORK, found, strict=True))


class Row(Protocol):
    """A line of one of the two tables."""

    @property
    def name(self) -> str:
        """For ``--only``."""
        ...

    def labels(self) -> Mapping[str, Any]:
        """What identifies its run."""
        ...

    def measure(self, *, quick: bool) -> dict[str, Any]:
        """The figures."""
        ...


@dataclass(frozen=True)
class Cost:
    """The cost of a row of an event.

    Attributes:
        layer: The kind of layer.
        count: The number of rows.
    """

    layer: str
    count: int

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.layer}, {self.count} rows"

    def labels(self) -> Mapping[str, Any]:
        """The layer and the number of rows."""
        return {"layer": self.layer, "count": self.count}

    def measure(self, *, quick: bool) -> dict[str, Any]:
        """Microseconds a row."""
        count = min(self.count, 100) if quick else self.count
        calls = 1 if quick else max(1, 2_000 // count)
        found = {}
        for name, work in works(lambda: RowsAction(count, FEATURES), self.layer, BATCH).items():
            work()
            seconds = cpu_seconds(work, calls=calls, rounds=1 if quick else 7)
            found[name] = round(1e6 * seconds / (count if name == "set-up" else count * BATCH), 3)
        return found


@dataclass(frozen=True)
class Six:
    """The time by structure over that by a table of all permutations.

    Attributes:
        layer: The kind of layer.
        work: What is timed.
    """

    layer: str
    work: str

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"S6 by structure, {self.layer}, {self.work}"

    def labels(self) -> Mapping[str, Any]:
        """The layer and what is timed."""
        return {"layer": self.layer, "work": self.work, "count": 6}

    def measure(self, *, quick: bool) -> dict[str, Any]:
        """The ratio: lower quartile, median and upper quartile."""
        rows = works(lambda: RowsAction(6, FEATURES), self.layer, BATCH_OF_SIX)
        table = works(lambda: VectorAction.rows("S6", features=FEATURES), self.layer, BATCH_OF_SIX)
        ratios = interleaved_ratios(
            rows[self.work], table[self.work], calls=1 if quick else 5, rounds=2 if quick else ROUNDS
        )
        return {"ratio": [round(ratio, 3) for ratio in ratios]}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The figures of a row."""
    return row.measure(quick=quick)


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """The costs with their exponents, and the ratios."""
    found = {each.row.name: each for each in grouped(rows, runs)}
    costs = [row for row in rows if isinstance(row, Cost) and row.name in found]
    lines = []
    for layer in dict.fromkeys(row.layer for row in costs):
        own = {row.count: found[row.name] for row in costs if row.layer == layer}
        for work in WORK:
            times = [f"{own[count][work]:.2f}" if count in own else "" for count in COUNTS]
            both = [own[count][work] * count for count in COUNTS[-2:] if count in own]
            exponent = f"{math.log10(both[1] / both[0]):.2f}" if len(both) == 2 else ""
            lines.append([layer, work, *times, exponent])
    head = ["layer", "microseconds a row", *(f"{count:,} rows" for count in COUNTS), "exponent"]
    first = markdown(head, lines, left=range(2))
    ratios = []
    for row in rows:
        if isinstance(row, Six) and row.name in found:
            low, middle, high = found[row.name]["ratio"]
            ratios.append([row.layer, row.work, f"{middle:.2f} ({low:.2f}-{high:.2f})"])
    return first + "\n\n" + markdown(["S6 by structure", "work", "time over that by a table"], ratios, left=range(2))


ROWS: list[Row] = [
    *(Cost(layer, count) for layer in LAYERS for count in COUNTS),
    *(Six(layer, work) for layer in ("coupling",) for work in WORK),
]
BENCHMARK = Benchmark("rows", __doc__, ROWS, run, table)

if __name__ == "__main__":
    main(BENCHMARK)
