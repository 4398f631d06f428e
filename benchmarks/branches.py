"""Lipschitz branches on the digits: what the field offers, each in the same small flow, on the validation images.

    python -m benchmarks.branches
    python -m benchmarks.branches --seed 101 --only splines curves

Every row is one residual flow of C4 (8 blocks) with another branch, trained alike: 300 steps of 64 digits, seed 100.
Bits/dim are group means on the validation images; the test images are not used. "Certified / reached" is the ratio
of a trained branch's certified Lipschitz bound to the largest singular value of its Jacobian that a search finds, the
geometric mean over the blocks. Every finished fit is one line of ``benchmarks/results/branches.jsonl`` and is not run
again.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from benchmarks.harness import Benchmark, Run, Seeds, Stopwatch, grouped, main, markdown
from benchmarks.lipschitz import largest_slope
from pyro_gflows import (
    EquivariantFlow,
    EquivariantTransform,
    GActNorm,
    GMonotone,
    ImageAction,
    InvariantNormal,
    LinearAction,
    g_residual,
)
from pyro_gflows.datasets import load_data
from pyro_gflows.evaluation import group_bits_per_dim, log_probs
from pyro_gflows.nn import LipschitzDenseNetwork, LipschitzNetwork
from pyro_gflows.numerics import RouletteLogDet
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit

GROUP, BLOCKS, WIDTH, STEPS = "C4", 8, 4, 300

Layer = Callable[[ImageAction], EquivariantTransform]


def residual(make: Callable[[LinearAction], nn.Module]) -> Layer:
    return lambda action: g_residual(action, branch=make)


def network(**changes: Any) -> Layer:
    return residual(lambda action: LipschitzNetwork(action, **{"width": WIDTH, **changes}))


VARIANTS: dict[str, Layer] = {
    "splines": network(),
    "LipSwish": network(activation="lipswish"),
    "CLipSwish": network(activation="clipswish"),
    "curves": network(activation="curves"),
    "splines, bound split by layer": network(units="layer"),
    "splines, bound split by field": network(units="field"),
    "CLipSwish, bound split by field": network(activation="clipswish", units="field"),
    "splines, almost orthogonal layers": network(layer="almost_orthogonal"),
    "splines, polar layers": network(layer="polar"),
    "splines, mirrored start": network(mirrored=True),
    "splines, bound split by field, mirrored start": network(units="field", mirrored=True),
    "splines, bound split by field, polar layers": network(units="field", layer="polar"),
    "dense block, splines": residual(lambda action: LipschitzDenseNetwork(action, width=WIDTH)),
    "dense block, CLipSwish": residual(
        lambda action: LipschitzDenseNetwork(action, width=WIDTH, activation="clipswish")
    ),
    "monotone, splines, bound 0.9": lambda action: GMonotone(action, LipschitzNetwork(action, width=WIDTH, bound=0.9)),
    "curves, bound split by field": network(activation="curves", units="field"),
    "curves, bound split by field, 3 fields": network(width=3, activation="curves", units="field"),
    "curves, bound split by field, polar layers": network(activation="curves", units="field", layer="polar"),
    "monotone, curves, bound split by field, bound 0.9": lambda action: GMonotone(
        action, LipschitzNetwork(action, width=WIDTH, bound=0.9, activation="curves", units="field")
    ),
    "curves, bound split by field, 8 fields": network(width=8, activation="curves", units="field"),
    "splines, 8 fields": network(width=8),
    "splines, bound split by field, 8 fields": network(width=8, units="field"),
    "splines, depth 2, estimated log-det": lambda action: g_residual(
        action, branch=functools.partial(LipschitzNetwork, width=WIDTH, depth=2), log_det=RouletteLogDet()
    ),
    "sorted pairs": network(activation="sorted_pairs"),
}


@dataclass(frozen=True)
class Row:
    """One of VARIANTS."""

    name: str

    def labels(self) -> Mapping[str, str]:
        """The name."""
        return {"name": self.name}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train and measure one flow."""
    data = load_data("digits", seed=seed)
    assert isinstance(data.train, torch.Tensor) and data.validation is not None and data.scaling is not None
    action = ImageAction(GROUP, 1, size=8)
    torch.manual_seed(seed)
    layers = [part for _ in range(BLOCKS) for part in (GActNorm(action), VARIANTS[row.name](action))]
    flow = EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)])
    schedule, optimizer = OneCycle(warmup=0.1), Adam(lr=1e-2, clip_norm=50.0)
    settings = FitSettings(2 if quick else STEPS, batch_size=64, seed=seed, optimizer=optimizer, schedule=schedule)
    with Stopwatch() as watch:
        result = fit(flow, data.train, settings=settings, augment=data.augment, progress=False)
    train = data.scaling.bits_per_dim(-float(log_probs(flow, data.train[:400]).mean()), pixels=action.numel)
    residual_layers = [layer for layer in layers if hasattr(layer, "branch")][: 1 if quick else None]
    points = data.validation[: 2 if quick else 64]
    slopes = [_slack(layer.branch, points) for layer in residual_layers]
    return {
        "steps": result.steps,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "group_bits_per_dim_validation": group_bits_per_dim(flow, data.validation, action, scaling=data.scaling),
        "bits_per_dim_train": train,
        "ratio": math.exp(sum(math.log(bound / reached) for bound, reached in slopes) / len(slopes)),
        "reached": [round(reached, 4) for _, reached in slopes],
        "bounds": [round(bound, 4) for bound, _ in slopes],
        **watch.figures(),
    }


def _slack(branch: LipschitzNetwork | LipschitzDenseNetwork, x: torch.Tensor) -> tuple[float, float]:
    """A branch's certified bound, and the largest slope that is found."""
    branch = copy.deepcopy(branch).double()
    bound = float(branch.lipschitz_bound())
    shallow = len(branch.activations) == 1
    # without a closed form of the Jacobian a search would take longer than the fit: 8 points, no ascent
    return bound, largest_slope(branch, x[: 64 if shallow else 8].double(), steps=15 if shallow else 0)


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """The comparison, the best of the first seed first."""
    seeds = sorted({run["seed"] for run in runs})
    lines: list[tuple[float, list[str]]] = []
    for found in grouped(rows, runs):
        by_seed = {run["seed"]: run for run in found.runs}
        first = by_seed[min(by_seed)]
        bits = {seed: f"{run['group_bits_per_dim_validation']:.3f}" for seed, run in by_seed.items()}
        more = [f"{first['bits_per_dim_train']:.3f}", f"{first['ratio']:.2f}", f"{first['cpu_seconds']:.0f}"]
        cells = [found.row.name, f"{first['parameters']}", *(bits.get(seed, "") for seed in seeds), *more]
        lines.append((first["group_bits_per_dim_validation"], cells))
    by_seed_head = [f"bits/dim, seed {seed}" for seed in seeds]
    head = ["branch", "parameters", *by_seed_head, "training", "certified / reached", "CPU seconds"]
    return markdown(head, [cells for _, cells in sorted(lines)])


BENCHMARK = Benchmark("branches", __doc__, [Row(name) for name in VARIANTS], run, table, seeds=Seeds(1, first=100))

if __name__ == "__main__":
    main(BENCHMARK)
