"""CPU milliseconds of a training step of every row of the densities' table, and where they go.

    python -m benchmarks.step_times

Least of three rounds: the CPU time of this process, which a busy machine inflates less than wall time. How many steps
the comparators in ``benchmarks/densities.py`` take comes from it. Nothing is kept: these are times of the machine at
hand.
"""

from __future__ import annotations

import torch

from benchmarks.densities import ROWS, Row
from benchmarks.harness import Benchmark, Column, columns, cpu_seconds, main
from pyro_gflows.actions import VectorAction
from pyro_gflows.targets import density
from pyro_gflows.training import random_elements
from pyro_gflows.training.objectives.likelihood import Likelihood
from pyro_gflows.training.trainer import Trainer

STEPS, ROUNDS = 20, 3


def run(row: Row, *, seed: int, quick: bool) -> dict[str, float]:
    """Milliseconds of a step and of its parts; weights and points are always those of one seed."""
    torch.manual_seed(0)
    flow = row.build()
    augment = random_elements(VectorAction.plane(row.symmetry)) if row.symmetry else None
    objective = Likelihood(flow, density(row.data), settings=row.settings, augment=augment, validation=None)  # type: ignore
    trainer = Trainer(objective, settings=row.settings)
    trainer.start()
    x = density(row.data).sample(row.settings.batch_size)
    optimizer = row.settings.optimizer.make(flow.parameters())
    calls, rounds = (1, 1) if quick else (STEPS, ROUNDS)
    parts = {
        "step": trainer.step,
        "forward": lambda: flow(x),
        "both": lambda: flow(x).mean().backward(),
        "update": optimizer.step,
    }
    figures = {}
    for part, work in parts.items():
        work()  # constants are made at the first call
        figures[part] = 1e3 * cpu_seconds(work, calls=calls, rounds=rounds)
    return figures


BENCHMARK = Benchmark(
    "step_times",
    __doc__,
    ROWS,
    run,
    columns(
        Column("row", lambda found: found.row.name, left=True),
        Column("step, ms", lambda found: f"{found['step']:.1f}"),
        Column("forward", lambda found: f"{found['forward']:.1f}"),
        Column("backward", lambda found: f"{found['both'] - found['forward']:.1f}"),
        Column("Adam", lambda found: f"{found['update']:.1f}"),
        Column("steps", lambda found: f"{found.row.settings.steps}"),
        Column("CPU seconds", lambda found: f"{found['step'] * found.row.settings.steps / 1e3:.0f}"),
    ),
    kept=False,
)

if __name__ == "__main__":
    main(BENCHMARK)
