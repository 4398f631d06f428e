"""Events a second of two processes (gloo) with one thread each, over those of one process with one thread.

    export MALLOC_TRIM_THRESHOLD_=4000000000 MALLOC_MMAP_THRESHOLD_=4000000000
    python -m benchmarks.devices     # the table results/devices.md from results/devices.jsonl; 5 minutes

The two variables keep the C library from giving memory back to the system after every step, which costs two processes
up to half of their time, and one process little.

Both take the same steps on the same global batch: those of ``fit`` on ``devices=2`` and on one device. They alternate
within one run of two processes, in which the second one sleeps while the first one trains alone, so that a machine that
slows down for a while slows both. A ratio is the median over rounds, with quartiles.

Two ratios are given, since two processes need two cores and whatever else runs takes one from them:

- *wall*: the seconds of one over those of two, as the clock on the wall says; at most 2. It is right on an idle
  machine. "Best round" is the largest of the rounds, which other programs disturbed least.
- *CPU*: the CPU seconds of one over those of the busier of the two. It is the ratio on two free cores if the processes
  never wait for each other, and does not depend on the load.
"""

from __future__ import annotations

import copy
import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed

from benchmarks.device_flows import FAMILIES
from benchmarks.harness import Benchmark, Column, columns, main
from pyro_gflows.training import Devices, Engine, FitSettings, Objective
from pyro_gflows.training.engines.devices import launch
from pyro_gflows.training.trainer import Trainer

ROUNDS, SECONDS = 7, 0.7  # of one process in a round
# batches beside which the time without events is small, as it is not in those of the families
LARGE = dict.fromkeys(("coupling", "autoregressive", "residual", "energy"), (32768,))
TWO = Devices(2, strategy="ddp_fork", accelerator="cpu")


@dataclass(frozen=True)
class Row:
    """One flow with one size of batch."""

    family: str
    batch: int

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.family} {self.batch}"

    def labels(self) -> Mapping[str, Any]:
        """The flow in words, and the batch."""
        return {"family": self.family, "about": FAMILIES[self.family].about, "batch": self.batch}


@dataclass(frozen=True)
class Race:
    """Times rounds in which first both processes and then the first one alone train, as each process carries it out."""

    objective: Objective
    settings: FitSettings
    rounds: int
    seconds: float

    def __call__(self, engine: Engine) -> list[list[dict[str, float]]]:
        """Return for each round what both processes took together, and what one took, by rank."""
        torch.set_num_threads(1)
        alone = Trainer(copy.deepcopy(self.objective), settings=self.settings)
        alone.start()
        both = Trainer(self.objective, settings=self.settings, engine=engine)
        both.start()
        took = clock(lambda: (both.step(), both.step()))["seconds"]
        steps = max(1, round(self.seconds / took))
        steps = engine.gather(steps)[0]
        found = []
        for _ in range(self.rounds + 1):
            engine.gather(None)  # they begin together
            two = clock(lambda: [both.step() for _ in range(steps)])
            engine.gather(None)
            one = clock(lambda: [alone.step() for _ in range(steps)]) if engine.share.rank == 0 else {}
            engine.gather(None)
            found.append([*engine.gather(two), engine.gather(one)[0]])
        return [[{name: value / steps for name, value in part.items()} for part in parts] for parts in found[1:]]


def clock(work: Callable[[], object]) -> dict[str, float]:
    """Wall and CPU seconds of a call."""
    seconds, cpu = time.perf_counter(), time.process_time()
    work()
    return {"seconds": time.perf_counter() - seconds, "cpu": time.process_time() - cpu}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Milliseconds of a step, and the ratios with their quartiles."""
    objective = FAMILIES[row.family].objective(row.batch, steps=100_000)
    settings = FitSettings(steps=100_000, batch_size=row.batch, check_symmetry=False)
    settings = dataclasses.replace(settings, validation=dataclasses.replace(settings.validation, every=10**9))
    race = Race(objective, settings, rounds=2 if quick else ROUNDS, seconds=0.02 if quick else SECONDS)
    rounds = launch(TWO, race, module=objective.module)
    wall = [one["seconds"] / max(first["seconds"], second["seconds"]) for first, second, one in rounds]
    cpu = [one["cpu"] / max(first["cpu"], second["cpu"]) for first, second, one in rounds]
    return {
        "parameters": sum(weights.numel() for weights in objective.parameters()),
        "one_ms": 1e3 * statistics.median(one["seconds"] for *_, one in rounds),
        "two_ms": 1e3 * statistics.median(first["seconds"] for first, *_ in rounds),
        "one_cpu_ms": 1e3 * statistics.median(one["cpu"] for *_, one in rounds),
        "two_cpu_ms": 1e3 * statistics.median(max(a["cpu"], b["cpu"]) for a, b, _ in rounds),
        "wall": statistics.quantiles(wall, n=4),
        "cpu": statistics.quantiles(cpu, n=4),
        "best_wall": max(wall),
        "one_least_ms": 1e3 * min(one["seconds"] for *_, one in rounds),
        "two_least_ms": 1e3 * min(first["seconds"] for first, *_ in rounds),
    }


def ratio(name: str) -> Callable[[Any], str]:
    """A cell with a median and its quartiles."""

    def cell(found: Any) -> str:
        low, middle, high = found[name]
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    return cell


BENCHMARK = Benchmark(
    "devices",
    __doc__,
    [
        Row(family.name, batch)
        for family in FAMILIES.values()
        for batch in (*family.batches, *LARGE.get(family.name, ()))
    ],
    run,
    columns(
        Column("flow", lambda found: f"{found['family']} ({found['about']})", left=True),
        Column("parameters", lambda found: f"{found['parameters']:,}"),
        Column("batch", lambda found: f"{found['batch']}"),
        Column(
            "one process, ms a step, wall (CPU)", lambda found: f"{found['one_ms']:.1f} ({found['one_cpu_ms']:.1f})"
        ),
        Column("two, ms a step, wall (CPU)", lambda found: f"{found['two_ms']:.1f} ({found['two_cpu_ms']:.1f})"),
        Column("events/s of two over one, wall", ratio("wall")),
        Column("best round", lambda found: f"{found['best_wall']:.2f}"),
        Column("the same, CPU", ratio("cpu")),
        Column("load", lambda found: f"{found['load']:.1f}"),
    ),
)

if __name__ == "__main__":
    main(BENCHMARK)
