"""CPU time of 100 draws with log-densities: every trained density of a target beside the continuous flows.

    python -m benchmarks.particles.timing                  # LJ13, the trained weights of seed 0
    python -m benchmarks.particles.timing --only dw4

All run in one process, in turn, on one thread; times are medians over rounds with quartiles, and a ratio is the median
over rounds of the time of a density over that of a continuous flow in the same round. Weights are those that ``python
-m benchmarks.particles`` left in its folder (a continuous flow takes more steps once it is trained); a design without
weights is left out with a word.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from benchmarks.harness import Benchmark, Run, Seeds, grouped, main, markdown
from benchmarks.particles import benchmark
from benchmarks.particles.measure import TIMED_DRAWS, Model
from benchmarks.particles.problems import TARGETS, Problem, problem
from benchmarks.peers.clocks import interleaved, quartiles

__all__ = ["BENCHMARK", "Row", "table", "times"]

ROUNDS = 7
MOST_SECONDS = 900.0
SLICE = 0.5  # seconds for which a density is drawn from in a round, or one call


@dataclass(frozen=True)
class Row:
    """All densities of a target.

    Attributes:
        name: The target.
        folder: Where exact draws and weights are.
    """

    name: str
    folder: Path = benchmark.FOLDER

    def labels(self) -> Mapping[str, Any]:
        """The target and the number of draws."""
        return {"name": self.name, "timed_draws": TIMED_DRAWS}


def models(row: Row, data: Problem, *, seed: int, untrained: bool) -> dict[str, Model]:
    """The densities of the target whose weights are there, by the names of their rows."""
    found = {}
    for trained in benchmark.ROWS:
        if trained.target != row.name:
            continue
        trained = replace(trained, folder=row.folder)
        path = benchmark.weights_of(trained, seed)
        if not untrained and not path.exists():
            tqdm.write(f"left out: {trained.name}, without weights in {path}")
            continue
        model = benchmark.kept_model(trained, data, seed=seed, untrained=untrained)
        found[trained.name.removeprefix(f"{row.name}, ")] = model
    return found


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The times of all densities."""
    data = problem(row.name, seed=seed, folder=row.folder, quick=quick)
    return times(models(row, data, seed=seed, untrained=quick), data, quick=quick)


@torch.no_grad()
def times(chosen: Mapping[str, Model], data: Problem, *, quick: bool) -> dict[str, Any]:
    """Quartiles of the seconds of 100 draws, and of the ratios to each continuous flow, with evaluations a draw.

    Raises:
        ValueError: If there is no continuous flow among them, or nothing to compare with it.
    """
    evaluations = {}
    for name, model in chosen.items():
        before = model.evaluations()
        model.draw(TIMED_DRAWS, data.target)
        evaluations[name] = model.evaluations() - before or 1
    continuous = [name for name, model in chosen.items() if model.evaluations()]
    if not continuous or len(continuous) == len(chosen):
        raise ValueError(
            f"expected weights of a continuous flow and of finite ones, got {list(chosen)}; train them with "
            f"python -m benchmarks.particles --target {data.target.name}"
        )

    def work(model: Model) -> Callable[[], object]:
        return lambda: model.draw(TIMED_DRAWS, data.target)

    found = interleaved(
        {name: work(model) for name, model in chosen.items()},
        device=torch.device("cpu"),
        rounds=3 if quick else ROUNDS,
        slice_seconds=0.0 if quick else SLICE,
        most_seconds=MOST_SECONDS,
    )
    return {
        "names": list(chosen),
        "continuous": continuous,
        "evaluations": evaluations,
        "seconds": {name: quartiles(values) for name, values in found.items()},
        "ratios": {
            other: {
                name: quartiles([a / b for a, b in zip(values, found[other], strict=True)])
                for name, values in found.items()
            }
            for other in continuous
        },
    }


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """A table for each target: time, evaluations, and the ratio to each continuous flow."""
    parts = []
    for group in grouped(rows, runs):
        figures = group.runs[-1]
        head = ["density", "evaluations a draw", "100 draws, s", *(f"over {name}" for name in figures["continuous"])]
        lines = [
            [
                name,
                f"{figures['evaluations'][name]}",
                in_words(figures["seconds"][name]),
                *(in_words(figures["ratios"][other][name]) for other in figures["continuous"]),
            ]
            for name in figures["names"]
        ]
        parts.append(f"### {group.row.name.upper()}\n\n{markdown(head, lines)}")
    return "\n\n".join(parts)


def in_words(quartile: Sequence[float]) -> str:
    """The median with the quartiles."""
    low, middle, high = quartile
    return f"{middle:.3g} ({low:.3g} to {high:.3g})"


ROWS: Sequence[Row] = [Row(name) for name in reversed(TARGETS)]

BENCHMARK = Benchmark(
    "particles.timing",
    __doc__,
    ROWS,
    run,
    table,
    seeds=Seeds(),
    more_options=benchmark.folder_option,
    choose=lambda asked: [replace(row, folder=asked.folder) for row in ROWS],
)

if __name__ == "__main__":
    main(BENCHMARK)
