"""The benchmark of particles: its rows, how one is run, and its options."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness import Benchmark, Seeds, Stopwatch
from benchmarks.particles.clock import Clock
from benchmarks.particles.designs import DESIGNS, Design
from benchmarks.particles.measure import Model, measure
from benchmarks.particles.memory import peak_megabytes
from benchmarks.particles.problems import TARGETS, TEST, TEST_STREAM, TRAINING, Problem, problem
from benchmarks.particles.table import table

__all__ = [
    "BENCHMARK",
    "FOLDER",
    "ROWS",
    "Row",
    "folder_option",
    "kept_model",
    "measured",
    "model_of",
    "run",
    "weights_of",
]

ABOUT = """Densities of clusters of particles: finite flows, a continuous flow and a plain one, by exact draws.

    python -m benchmarks.particles --target dw4 --seeds 5
    python -m benchmarks.particles --target lj13 --design "pair" --by energy --seed 0
    python -m benchmarks.particles --table

See benchmarks/particles/__init__.py for all commands of the table, and what is measured.
"""

FOLDER = Path(__file__).parents[2] / "runs" / "particles"
DRAWS = 100_000
QUICK_MINUTES = 0.01
QUICK_DRAWS = 100


@dataclass(frozen=True)
class Row:
    """One design, trained in one way for one target.

    Attributes:
        target: Its name.
        design: The design.
        by: The name of the training.
        minutes: CPU minutes of the training.
        draws: Own draws over which ESS is measured.
        folder: Where exact draws and weights are kept.
        resume: Whether kept weights of the same recipe and time are measured, if there are any, in place of a training.
    """

    target: str
    design: Design
    by: str
    minutes: float
    draws: int
    folder: Path = FOLDER
    resume: bool = False

    @property
    def name(self) -> str:
        """Target, design and training."""
        return f"{self.target}, {self.design.name}, by {self.by}"

    @property
    def scored(self) -> int:
        """Test draws that are scored."""
        return self.design.scored.get(self.target, TEST[self.target])

    def labels(self) -> Mapping[str, Any]:
        """Name, and what the outcome depends on: sizes, training, time and draws."""
        size = " ".join(f"{key}={value}" for key, value in self.design.size.items())
        data = f"{TRAINING} training draws, {self.scored} test draws of stream {TEST_STREAM}"
        recipe = f"{self.design.build.__name__} {size}; {self.design.training[self.by]}; {data}"
        return {"name": self.name, "recipe": recipe, "minutes": self.minutes, "draws": self.draws}


def rows_of(designs: Sequence[Design]) -> list[Row]:
    """The rows of some designs."""
    return [
        Row(target, design, by, design.minutes[target], design.draws.get(target, DRAWS))
        for target in TARGETS
        for design in designs
        if target in design.minutes
        for by in design.training
    ]


ROWS: Sequence[Row] = rows_of(DESIGNS)


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train a design and measure it; its weights are kept for the timing."""
    data = problem(row.target, seed=seed, folder=row.folder, quick=quick)
    model = model_of(row, data, seed=seed)
    about = _timed_training(row, model, data, Clock(QUICK_MINUTES), seed) if quick else _trained(row, model, data, seed)
    draws = QUICK_DRAWS if quick else row.draws
    kept = None if quick else own_draws_of(row, seed)
    figures = measure(
        measured(row, model), data.target, data.test[: row.scored], draws=draws, seed=seed + TEST_STREAM, kept=kept
    )
    return {**about, **figures, "peak_megabytes": peak_megabytes()}


def _trained(row: Row, model: Model, data: Problem, seed: int) -> dict[str, Any]:
    """Train a density, or read the weights of a finished training, and return the figures of the training."""
    weights = weights_of(row, seed)
    record, asked = weights.with_suffix(".json"), {**row.labels(), "draws": None}
    if row.resume and record.exists():
        about: dict[str, Any] = json.loads(record.read_text())
        if about.pop("asked") == asked:
            model.module.load_state_dict(torch.load(weights))
            return about
    about = _timed_training(row, model, data, Clock(row.minutes), seed)
    weights.parent.mkdir(parents=True, exist_ok=True)
    record.unlink(missing_ok=True)  # an interruption leaves no record of other weights
    torch.save(model.module.state_dict(), weights)
    record.write_text(json.dumps({"asked": asked, **about}))
    return about


def _timed_training(row: Row, model: Model, data: Problem, clock: Clock, seed: int) -> dict[str, Any]:
    with torch.random.fork_rng(), Stopwatch() as watch:
        torch.manual_seed(seed)
        steps = row.design.training[row.by](model.fitted, data, clock, seed)
    return {"steps": steps, **watch.figures()}


def model_of(row: Row, data: Any, *, seed: int) -> Model:
    """The untrained density of a row."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Model(row.design.make(data), at_once=row.design.at_once)


def measured(row: Row, model: Model) -> Model:
    """The density that is measured in place of the one that is trained."""
    return model if row.design.measured is None else replace(model, fitted=row.design.measured(model.fitted))


def kept_model(row: Row, data: Any, *, seed: int, untrained: bool = False) -> Model:
    """The density of a row as it is measured, with the weights of its training or, ``untrained``, its first ones."""
    model = model_of(row, data, seed=seed)
    if not untrained:
        model.module.load_state_dict(torch.load(weights_of(row, seed), weights_only=True))
    model = measured(row, model)
    model.module.eval()
    return model


def folder_option(parser: argparse.ArgumentParser) -> None:
    """The folder with exact draws and trained weights."""
    parser.add_argument("--folder", type=Path, default=FOLDER, help="of draws and weights (runs/particles)")


def weights_of(row: Row, seed: int) -> Path:
    """Where the trained weights of a run are."""
    name = "-".join(part for part in "".join(c if c.isalnum() else " " for c in row.name).split())
    return row.folder / f"{name}-{seed}.pt"


def own_draws_of(row: Row, seed: int) -> Path:
    """Where the importance weights of the own draws of a run are."""
    return weights_of(row, seed).with_suffix(".draws")


def options(parser: argparse.ArgumentParser) -> None:
    """Which rows, and what they are given."""
    parser.add_argument("--target", choices=list(TARGETS), help="the rows of this target alone")
    parser.add_argument("--design", metavar="NAME", help="the rows whose design contains this")
    parser.add_argument("--by", choices=["likelihood", "energy"], help="the rows of this training alone")
    parser.add_argument("--minutes", type=float, metavar="M", help="CPU minutes of a training, in place of the row's")
    parser.add_argument("--draws", type=int, metavar="N", help="own draws, in place of the row's")
    folder_option(parser)
    parser.add_argument(
        "--resume", action="store_true", help="measure kept weights of the same recipe, if there are any"
    )


def chosen(asked: argparse.Namespace) -> list[Row]:
    """The rows that the options ask for."""
    return [
        replace(
            row,
            minutes=row.minutes if asked.minutes is None else asked.minutes,
            draws=row.draws if asked.draws is None else asked.draws,
            folder=asked.folder,
            resume=asked.resume,
        )
        for row in ROWS
        if asked.target in (None, row.target)
        and asked.by in (None, row.by)
        and (asked.design is None or asked.design in row.design.name)
    ]


BENCHMARK = Benchmark("particles", ABOUT, ROWS, run, table, seeds=Seeds(), more_options=options, choose=chosen)
