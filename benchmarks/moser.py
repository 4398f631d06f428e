"""Moser's flow between two densities on tori: its errors over the grid and the steps, for one, two and three angles.

    python -m benchmarks.moser     # and the figures results/moser_errors.png and results/moser_field.png

The rows on two angles are of densities that are invariant under D4 with translations by half a circle. Nothing is
random.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Column, Run, Stopwatch, columns, main
from pyro_gflows import plots
from pyro_gflows.actions import TorusAction, VectorAction
from pyro_gflows.numerics import periodic_grid
from pyro_gflows.targets import LogDensity
from pyro_gflows.transforms import GMoser, moser

POINTS = {1: 1024, 2: 64, 3: 12}  # along each axis, at which densities are compared


def normalized(function: LogDensity, dimension: int) -> LogDensity:
    """A log-density from a function, normalized by the sum over a fine grid."""
    size = {1: 1024, 2: 256, 3: 64}[dimension]
    values = function(periodic_grid(size, dimension).reshape(-1, dimension))
    log_mass = float(values.exp().mean().log()) + dimension * math.log(2 * math.pi)
    return lambda x: function(x) - log_mass


def _mean_wave(x: Tensor) -> Tensor:
    return 0.8 * (2 * x).cos().sum(-1)


def _checks(x: Tensor) -> Tensor:
    return 1.5 * (2 * x).cos().prod(-1) - 0.5 * (2 * x).cos().sum(-1) + 0.4 * x.cos().prod(-1).square()


def reflected(*, grid: int, steps: int) -> GMoser:
    """From one bump to two bumps on the circle, under x -> -x."""
    p = normalized(lambda x: x[..., 0].cos(), 1)
    q = normalized(lambda x: 0.7 * (2 * x[..., 0]).cos() - 0.5 * x[..., 0].cos(), 1)
    return moser(p, q, TorusAction.point_group(VectorAction.signs(1)), grid=grid, steps=steps)


def square(*, grid: int, steps: int) -> GMoser:
    """Two densities of two angles under D4 with translations by half a circle."""
    action = TorusAction.point_group("D4").with_translations([[math.pi, math.pi]])
    return moser(normalized(_mean_wave, 2), normalized(_checks, 2), action, grid=grid, steps=steps)


def permuted(*, grid: int, steps: int) -> GMoser:
    """Two densities of three angles that all permutations leave as they are."""
    p = normalized(lambda x: 0.5 * x.cos().sum(-1), 3)
    q = normalized(lambda x: 0.7 * x.cos().prod(-1) + 0.2 * (2 * x).cos().sum(-1), 3)
    return moser(p, q, TorusAction.point_group(VectorAction.rows("S3")), grid=grid, steps=steps)


FLOWS: Mapping[str, Callable[..., GMoser]] = {
    "one angle, reflection": reflected,
    "two angles, D4 and half periods": square,
    "three angles, S3": permuted,
}
FINE = {"grid": 128, "steps": 256}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        flow: One of FLOWS.
        grid: The number of grid points along each axis.
        steps: The number of steps.
    """

    flow: str
    grid: int
    steps: int

    @property
    def name(self) -> str:
        return f"{self.flow}, {self.grid}, {self.steps}"

    def labels(self) -> Mapping[str, Any]:
        """All of the row."""
        return {"flow": self.flow, "grid": self.grid, "steps": self.steps}


_SQUARE = "two angles, D4 and half periods"
OVER_GRID = [Row(_SQUARE, grid, FINE["steps"]) for grid in (8, 12, 16, 20, 24, 32, 40, 48, 64)]
OVER_STEPS = [Row(_SQUARE, FINE["grid"], steps) for steps in (4, 8, 16, 32, 64, 128, 256)]
ROWS: Sequence[Row] = [
    Row("one angle, reflection", 128, 64),
    Row("one angle, reflection", 128, 256),
    *OVER_GRID,
    *OVER_STEPS,
    Row("three angles, S3", 16, 32),
    Row("three angles, S3", 32, 32),
]


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The largest error of the pushed density, of equivariance, and of the inverse."""
    made = FLOWS[row.flow](grid=row.grid, steps=2 if quick else row.steps)
    action = made.action_in
    size = 8 if quick else POINTS[action.numel]
    x = periodic_grid(size, action.numel).reshape(-1, action.numel)
    few = 2 * math.pi * torch.rand(64, action.numel, dtype=x.dtype, generator=torch.Generator().manual_seed(seed))
    with Stopwatch() as watch, torch.no_grad():
        y, ladj = made.call_and_ladj(x)
    with torch.no_grad():
        error = ((made.p(x) - ladj).exp() - made.q(y).exp()).abs().max()
        image = made(few)
        moved = [action.space.difference(made(action.act(g, few)), action.act(g, image)) for g in action.generators()]
        back = action.space.difference(made.inv(image), few)
    return {
        "density_error": float(error),
        "equivariance_error": float(torch.stack(moved).abs().max()),
        "inverse_error": float(back.abs().max()),
        "points": len(x),
        **watch.figures(),
    }


def draw(runs: Sequence[Run], folder: Path) -> None:
    """Draw the errors over the grid and over the steps, and the vector field."""
    errors = {(run["flow"], run["grid"], run["steps"]): run["density_error"] for run in runs}
    plots.plot_moser_errors(
        {row.grid: errors[row.flow, row.grid, row.steps] for row in OVER_GRID},
        {row.steps: errors[row.flow, row.grid, row.steps] for row in OVER_STEPS},
        folder / "moser_errors.png",
    )
    plots.plot_moser(square(**FINE), folder / "moser_field.png")


BENCHMARK = Benchmark(
    "moser",
    __doc__,
    ROWS,
    run,
    columns(
        Column("densities", lambda found: found.row.flow, left=True),
        Column("grid", lambda found: f"{found.row.grid}"),
        Column("steps", lambda found: f"{found.row.steps}"),
        Column("largest error of the density", lambda found: f"{found['density_error']:.1e}"),
        Column("equivariance error", lambda found: f"{found['equivariance_error']:.1e}"),
        Column("error of the inverse", lambda found: f"{found['inverse_error']:.1e}"),
        Column("microseconds a point", lambda found: f"{1e6 * found['cpu_seconds'] / found['points']:.0f}"),
    ),
    after=draw,
)

if __name__ == "__main__":
    main(BENCHMARK)
