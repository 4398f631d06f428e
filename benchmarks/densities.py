"""Densities on the plane: the equivariant flows beside flows of the same size without the symmetry.

    python -m benchmarks.densities [--seeds 5] [--only NAME ...] [--quick]

Every run is one line of ``results/densities.jsonl``; runs that are there already are not repeated, so the command may
be stopped and started at will. The table in ``results/densities.md`` is made anew from these lines after every run.
With ``--quick`` nothing is kept.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import json
import math
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.planar_comparators import SplineCouplingFlow, plain_residual_flow
from pyro_gflows.actions import VectorAction
from pyro_gflows.evaluation import gap, invariance_error
from pyro_gflows.evaluation.scores import group_log_probs
from pyro_gflows.experiments.presets import PRESETS
from pyro_gflows.flows.families import build_action, build_flow
from pyro_gflows.targets import density
from pyro_gflows.training import Adam, FitSettings, fit, random_elements

RESULTS = Path(__file__).parent / "results"
POINTS = 200_000
# of the test points; torch's CPU generator looks at the low 32 bits of a seed only, so the offset is within them
TEST_STREAM = 1_000_000_007
INVARIANCE_ROWS = 128


COMPARATORS: Mapping[str, Callable[..., nn.Module]] = {
    "plain residual": plain_residual_flow,
    "Pyro spline coupling": SplineCouplingFlow,
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
            points are turned and mirrored at random; "" for an equivariant flow.
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


def run(row: Row, seed: int, *, quick: bool) -> dict[str, Any]:
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
    began = time.process_time()
    result = fit(flow, target, settings=settings, augment=augment, progress=False)  # type: ignore[arg-type]
    cpu_seconds = time.process_time() - began
    generator = torch.Generator().manual_seed(seed + TEST_STREAM)
    mean, error = gap(flow, target, n=points, generator=generator)
    action = build_action(target.symmetry if row.symmetry else row.group, (2,))
    rows = target.sample(INVARIANCE_ROWS, generator).double()
    figures = {
        "name": row.name,
        "seed": seed,
        "quick": quick,
        "recipe": recipe(row, quick=quick),
        "steps": result.steps,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "gap": mean,
        "gap_standard_error": error,
        "seconds": round(result.seconds, 1),
        "cpu_seconds": round(cpu_seconds, 1),
        "load": round(os.getloadavg()[0], 1),
        "threads": torch.get_num_threads(),
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


def recipe(row: Row, *, quick: bool) -> str:
    """Changes when the flow, its training or the measurement does."""
    size = " ".join(f"{key}={value:g}" for key, value in row.size.items())
    points = f"{POINTS} points of stream {TEST_STREAM}{' quick' * quick}"
    return f"{row.group} {row.flow} {size}; {row.settings}; {row.symmetry}; {points}"


def read(path: Path) -> list[dict[str, Any]]:
    """All finished runs."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def table(rows: Sequence[Row], done: Sequence[dict[str, Any]], *, quick: bool) -> str:
    """Median and worst over seeds, as Markdown."""
    lines = [
        "| density | flow | parameters | steps | seeds | gap, median | gap, worst | target | averaged at test time, "
        "median (worst) | seconds, wall (CPU) | invariance error, mean |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in rows:
        key = recipe(row, quick=quick)
        runs = [figures for figures in done if figures["name"] == row.name and figures["recipe"] == key]
        if not runs:
            continue

        def over_seeds(name: str, summary: Callable[[list[float]], float], runs: Any = runs) -> float:
            return summary([figures[name] for figures in runs])

        averaged = "-"
        if row.symmetry:
            middle, worst = (over_seeds("gap_symmetrized", summary) for summary in (statistics.median, max))
            averaged = f"{row.symmetry}: {middle:.4f} ({worst:.4f})"
        cells = [
            row.data,
            f"{row.group}: {row.flow}",
            str(runs[0]["parameters"]),
            str(runs[0]["steps"]),
            str(len(runs)),
            f"{over_seeds('gap', statistics.median):.4f}",
            f"{over_seeds('gap', max):.4f}",
            "-" if row.target is None else f"{row.target:g}",
            averaged,
            f"{over_seeds('seconds', statistics.median):.0f} ({over_seeds('cpu_seconds', statistics.median):.0f})",
            f"{over_seeds('invariance_error', statistics.mean):.1e}",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run what is missing."""
    names = [row.name for row in ROWS]
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5, help="seeds 0, 1, ... of every row")
    parser.add_argument("--only", nargs="+", choices=names, default=names, metavar="NAME", help=", ".join(names))
    parser.add_argument("--quick", action="store_true", help="a few steps and points, to see that it runs")
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    path = RESULTS / "densities.jsonl"
    done = [] if arguments.quick else read(path)
    chosen = [row for row in ROWS if row.name in arguments.only]
    for seed in range(arguments.seeds):
        for row in chosen:
            key = (row.name, seed, recipe(row, quick=arguments.quick))
            if key in {(figures["name"], figures["seed"], figures["recipe"]) for figures in done}:
                continue
            figures = run(row, seed, quick=arguments.quick)
            done.append(figures)
            print(json.dumps(figures), flush=True)
            if not arguments.quick:
                with path.open("a") as file:
                    file.write(json.dumps(figures) + "\n")
                path.with_suffix(".md").write_text(table(ROWS, done, quick=False))
    print(table(chosen, done, quick=arguments.quick))


if __name__ == "__main__":
    main()
