"""CPU milliseconds of a training step of every row of the densities' table, and where they go.

    python -m benchmarks.step_times

One thread, least of three rounds: the CPU time of this process, which a busy machine inflates less than wall time. The
comparators' numbers of steps in ``benchmarks/densities.py`` come from it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from benchmarks.densities import ROWS, Row
from pyro_gflows.actions import VectorAction
from pyro_gflows.targets import density
from pyro_gflows.training import random_elements
from pyro_gflows.training.objectives.likelihood import LikelihoodTrainer

STEPS = 20
ROUNDS = 3


def milliseconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    rounds = []
    for _ in range(ROUNDS):
        work()
        began = time.process_time()
        for _ in range(STEPS):
            work()
        rounds.append((time.process_time() - began) / STEPS * 1e3)
    return min(rounds)


def measure(row: Row) -> str:
    """One line of Markdown."""
    torch.manual_seed(0)
    flow = row.build()
    augment = random_elements(VectorAction.plane(row.symmetry)) if row.symmetry else None
    trainer = LikelihoodTrainer(flow, density(row.data), settings=row.settings, augment=augment, validation=None)  # type: ignore
    trainer.start()
    x = density(row.data).sample(row.settings.batch_size)
    optimizer = row.settings.optimizer.make(flow.parameters())

    step = milliseconds(trainer.step)
    forward = milliseconds(lambda: flow(x))
    both = milliseconds(lambda: flow(x).mean().backward())
    update = milliseconds(optimizer.step)
    figures = [f"{figure:.1f}" for figure in (step, forward, both - forward, update)]
    total = f"{step * row.settings.steps / 1e3:.0f}"
    return f"| {row.name} | {' | '.join(figures)} | {row.settings.steps} | {total} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("| row | step, ms | forward | backward | Adam | steps | CPU seconds |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for row in ROWS:
        print(measure(row), flush=True)
