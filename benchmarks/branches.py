"""Lipschitz branches on the digits: what the field offers, each in the same small flow, on the validation images.

    python -m benchmarks.branches
    python -m benchmarks.branches --seed 101 --only splines curves

Every row is one residual flow of C4 (8 blocks) with another branch, trained alike: 300 steps of 64 digits, seed 100.
Bits/dim are group means on the validation images; the test images are not looked at. "Certified / reached" is the ratio
of a trained branch's certified Lipschitz bound to the largest singular value of its Jacobian that a search finds, the
geometric mean over the blocks. Every finished fit is one line of ``benchmarks/results/branches.jsonl`` and is not run
again.
"""

from __future__ import annotations

import argparse
import copy
import functools
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

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

RESULTS = Path(__file__).parent / "results"
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


def fit_one(name: str, seed: int) -> dict[str, Any]:
    """Train and measure one flow; its row."""
    data = load_data("digits", seed=seed)
    assert isinstance(data.train, torch.Tensor) and data.validation is not None and data.scaling is not None
    action = ImageAction(GROUP, 1, size=8)
    torch.manual_seed(seed)
    layers = [part for _ in range(BLOCKS) for part in (GActNorm(action), VARIANTS[name](action))]
    flow = EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)])
    schedule, optimizer = OneCycle(warmup=0.1), Adam(lr=1e-2, clip_norm=50.0)
    settings = FitSettings(STEPS, batch_size=64, seed=seed, optimizer=optimizer, schedule=schedule)
    clock, cpu = time.perf_counter(), time.process_time()
    result = fit(flow, data.train, settings=settings, augment=data.augment, progress=False)
    seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
    train = data.scaling.bits_per_dim(-float(log_probs(flow, data.train[:400]).mean()), pixels=action.numel)
    slopes = [_slack(layer.branch, data.validation) for layer in layers if hasattr(layer, "branch")]
    return {
        "name": name,
        "seed": seed,
        "steps": result.steps,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "group_bits_per_dim_validation": group_bits_per_dim(flow, data.validation, action, scaling=data.scaling),
        "bits_per_dim_train": train,
        "ratio": math.exp(sum(math.log(bound / reached) for bound, reached in slopes) / len(slopes)),
        "reached": [round(reached, 4) for _, reached in slopes],
        "bounds": [round(bound, 4) for bound, _ in slopes],
        "seconds": round(seconds, 1),
        "cpu_seconds": round(cpu, 1),
        "load": round(os.getloadavg()[0], 1),
    }


def _slack(branch: LipschitzNetwork | LipschitzDenseNetwork, x: torch.Tensor) -> tuple[float, float]:
    """A branch's certified bound, and the largest slope that is found."""
    branch = copy.deepcopy(branch).double()
    bound = float(branch.lipschitz_bound())
    quick = len(branch.activations) == 1
    # without a closed form of the Jacobian a search would take longer than the fit: 8 points, no ascent
    return bound, largest_slope(branch, x[: 64 if quick else 8].double(), steps=15 if quick else 0)


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison, as Markdown, the best of the first seed first."""
    seeds = sorted({row["seed"] for row in rows})
    by_name: dict[str, dict[int, dict[str, Any]]] = {}
    for row in rows:
        by_name.setdefault(row["name"], {})[row["seed"]] = row
    lines = [
        f"| branch | parameters | {' | '.join(f'bits/dim, seed {seed}' for seed in seeds)} | training | "
        "certified / reached | CPU seconds |",
        "| --- | ---: |" + " ---: |" * (len(seeds) + 3),
    ]
    for name, runs in sorted(
        by_name.items(), key=lambda item: min(item[1].items())[1]["group_bits_per_dim_validation"]
    ):
        first = min(runs.items())[1]
        bits = [f"{runs[seed]['group_bits_per_dim_validation']:.3f}" if seed in runs else "" for seed in seeds]
        more = [f"{first['bits_per_dim_train']:.3f}", f"{first['ratio']:.2f}", f"{first['cpu_seconds']:.0f}"]
        lines.append(f"| {' | '.join([name, str(first['parameters']), *bits, *more])} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), metavar="NAME", help="run only these")
    parser.add_argument("--seed", type=int, default=100)
    parser.add_argument("--out", type=Path, default=RESULTS / "branches.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {row["name"] for row in rows if row["seed"] == arguments.seed}
    for name in arguments.only:
        if name in done:
            continue
        row = fit_one(name, arguments.seed)
        rows.append(row)
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}: {row['group_bits_per_dim_validation']:.4f} bits/dim, {row['cpu_seconds']:.0f} s", flush=True)
    print(table(rows))
    arguments.out.with_suffix(".md").write_text(table(rows) + "\n")


if __name__ == "__main__":
    main()
