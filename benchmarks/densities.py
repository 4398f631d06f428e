"""Densities on the plane: the equivariant flows beside flows of the same size without the symmetry.

    python -m benchmarks.densities [--seeds 5] [--only NAME ...]

Every run is one line of ``results/densities.jsonl``; runs that are there already are not repeated, so the command may
be stopped and started at will. The table in ``results/densities.md`` is made anew after every run.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.harness import (
    INVARIANCE,
    PARAMETERS,
    SECONDS,
    SEEDS,
    STEPS,
    Benchmark,
    Column,
    RowRuns,
    Seeds,
    Stopwatch,
    columns,
    main,
)
from benchmarks.planar_comparators import plain_residual_flow, spline_coupling_flow
from benchmarks.recipes import training_text
from pyro_gflows.actions import VectorAction
from pyro_gflows.evaluation import gap, invariance_error
from pyro_gflows.evaluation.scores import group_log_probs
from pyro_gflows.experiments.presets import PRESETS
from pyro_gflows.flows.families import build_action, build_flow
from pyro_gflows.targets import density
from pyro_gflows.training import Adam, FitSettings, fit, random_elements

POINTS = 200_000
# of the test points; torch's CPU generator looks at the low 32 bits of a seed only, so the offset is within them
TEST_STREAM = 1_000_000_007
INVARIANCE_ROWS = 128

COMPARATORS: Mapping[str, Callable[..., nn.Module]] = {
    "plain residual": plain_residual_flow,
    "Pyro spline coupling": spline_coupling_flow,
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: For ``--only``.
        data: The density.
        group: The symmetry of the flow, "C1" for a comparator.
        flow: A family of ``presets.FAMILIES`` or one of COMPARATORS.
        size: Its keywords.
        settings: How it is trained.
        target: The gap that the median over seeds must not exceed, or None for a comparator.
        symmetry: The finite group over which a comparator is averaged at test time, and from which its training
            points are rotated and reflected at random; "" for an equivariant flow.
    """

    name: str
    data: str
    group: str
    flow: str
    size: Mapping[str, float]
    settings: FitSettings
    target: float | None = None
    symmetry: str = ""

    def build(self) -> nn.Module:
        """A flow with fresh weights."""
        if self.flow in COMPARATORS:
            return COMPARATORS[self.flow](**self.size)
        return build_flow(self.flow, build_action(self.group, (2,)), size=self.size)

    def labels(self) -> Mapping[str, str]:
        """Name, and what the outcome depends on: flow, training and measurement."""
        size = " ".join(f"{key}={value:g}" for key, value in self.size.items())
        measured = f"{POINTS} points of stream {TEST_STREAM}"
        training = training_text(self.settings)
        recipe = f"{self.group} {self.flow} {size}; {training}; {self.symmetry}; {measured}"
        return {"name": self.name, "recipe": recipe}


def _equivariant(name: str, target: float) -> Row:
    preset = PRESETS[name]
    return Row(name, preset.data, preset.group, preset.flow, preset.size, preset.settings, target)


def _comparator(twin: str, flow: str, symmetry: str, *, steps: int, lr: float | None = None, **size: float) -> Row:
    """A flow without the symmetry, in as many parameters and (measured) as many seconds as its equivariant twin."""
    preset = PRESETS[twin]
    settings = dataclasses.replace(preset.settings, steps=steps)
    if lr is not None:
        settings = dataclasses.replace(settings, optimizer=Adam(lr=lr))
    return Row(f"{twin}-{flow.split()[-1]}", preset.data, "C1", flow, size, settings, symmetry=symmetry)


def _plain(twin: str, symmetry: str, **size: float) -> Row:
    return _comparator(twin, "plain residual", symmetry, **size)  # type: ignore[arg-type]


def _spline(twin: str, symmetry: str, **size: float) -> Row:
    scale = density(PRESETS[twin].data).data_sd
    return _comparator(twin, "Pyro spline coupling", symmetry, lr=1e-2, scale=scale, **size)  # type: ignore[arg-type]


ROWS: Sequence[Row] = [
    _equivariant("8gaussians", 0.003),
    _plain("8gaussians", "D8", steps=2000, blocks=10, terms=4, knots=9, limit=4.0),
    _spline("8gaussians", "D8", steps=2400, layers=3, hidden=10, bins=6),
    _equivariant("rings", 0.002),
    _equivariant("rings-radial", 0.003),
    _plain("rings", "D16", steps=1800, blocks=3, terms=2, knots=19, limit=3.0),
    _spline("rings", "D16", steps=1300, layers=2, hidden=6, bins=4),
    _equivariant("rings-ridges", 0.02),
    _plain("rings-ridges", "D16", steps=2200, blocks=8, terms=3, knots=32, limit=3.0),
    _spline("rings-ridges", "D16", steps=1350, layers=5, hidden=8, bins=8),
]


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train one flow and measure it, on fresh points of a stream that training never sees."""
    target = density(row.data)
    settings = dataclasses.replace(row.settings, seed=seed)
    points = POINTS
    if quick:
        settings, points = dataclasses.replace(settings, steps=50), POINTS // 20
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = row.build()
    augment = None if not row.symmetry else random_elements(VectorAction.plane(row.symmetry))
    with Stopwatch() as watch:
        result = fit(flow, target, settings=settings, augment=augment, progress=False)  # type: ignore[arg-type]
    generator = torch.Generator().manual_seed(seed + TEST_STREAM)
    mean, error = gap(flow, target, n=points, generator=generator)
    action = build_action(target.symmetry if row.symmetry else row.group, (2,))
    rows = target.sample(INVARIANCE_ROWS, generator).double()
    figures = {
        "steps": result.steps,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "gap": mean,
        "gap_standard_error": error,
        **watch.figures(),
        "invariance_error": invariance_error(copy.deepcopy(flow).double(), rows, action, generator=generator),
    }
    if row.symmetry:
        group = VectorAction.plane(row.symmetry)
        figures["gap_symmetrized"] = _symmetrized_gap(flow, target, group, generator, points=points // 10)
    return figures


def _symmetrized_gap(
    flow: nn.Module, target: Any, group: VectorAction, generator: torch.Generator, *, points: int
) -> float:
    """The gap of the mean over g of p(g x)."""
    x = target.sample(points, generator)
    images = group_log_probs(flow, x, group).double()
    averaged = torch.logsumexp(images, 0) - math.log(len(images))
    return float((target.log_prob(x.double()) - averaged).mean())


def _averaged(found: RowRuns[Row]) -> str:
    """The gap of a comparator that is averaged over the group at test time."""
    if not found.row.symmetry:
        return "-"
    return f"{found.row.symmetry}: {found.median('gap_symmetrized'):.4f} ({found.largest('gap_symmetrized'):.4f})"


BENCHMARK = Benchmark(
    "densities",
    __doc__,
    ROWS,
    run,
    columns(
        Column("density", lambda found: found.row.data, left=True),
        Column("flow", lambda found: f"{found.row.group}: {found.row.flow}", left=True),
        PARAMETERS,
        STEPS,
        SEEDS,
        Column("gap, median", lambda found: f"{found.median('gap'):.4f}"),
        Column("gap, worst", lambda found: f"{found.largest('gap'):.4f}"),
        Column("target", lambda found: "-" if found.row.target is None else f"{found.row.target:g}"),
        Column("averaged at test time, median (worst)", _averaged),
        SECONDS,
        INVARIANCE,
    ),
    seeds=Seeds(5),
)

if __name__ == "__main__":
    main(BENCHMARK)
