"""Lipschitz branches on the digits: what the field offers, each in the same small flow, on the validation images.

    python -m benchmarks.branches

Every row is one residual flow of C4 (8 blocks) with another branch, trained alike: 300 steps of 64 digits, seed 100.
Bits/dim are group means on the validation images; the test images are not looked at. "Certified / reached" is the ratio
of a trained branch's certified Lipschitz bound to the largest singular value of its Jacobian that a search finds, the
geometric mean over the blocks. Every finished fit is one line of ``benchmarks/results/branches.jsonl`` and is not run
again.
"""

from __future__ import annotations

import argparse
import copy
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
from pyro_gflows import EquivariantFlow, EquivariantTransform, GActNorm, ImageAction, InvariantNormal, g_residual
from pyro_gflows.datasets import load_data
from pyro_gflows.infer import Adam, FitSettings, OneCycle, fit, group_bits_per_dim, log_probs
from pyro_gflows.nn import LipschitzNetwork

RESULTS = Path(__file__).parent / "results"
GROUP, BLOCKS, WIDTH, STEPS, SEED = "C4", 8, 4, 300, 100

Layer = Callable[[ImageAction], EquivariantTransform]


def residual(make: Callable[[ImageAction], nn.Module]) -> Layer:
    return lambda action: g_residual(action, branch=make(action))


def network(**changes: Any) -> Layer:
    return residual(lambda action: LipschitzNetwork(action, **{"width": WIDTH, **changes}))


VARIANTS: dict[str, Layer] = {
    "splines": network(),
    "LipSwish": network(activation="lipswish"),
    "CLipSwish": network(activation="clipswish"),
    "sorted pairs": network(activation="sorted_pairs"),
    "curves": network(activation="curves"),
    "splines, bound split by layer": network(scales="layer"),
    "splines, bound split by field": network(scales="field"),
    "CLipSwish, bound split by field": network(activation="clipswish", scales="field"),
    "splines, almost orthogonal layers": network(layer="almost_orthogonal"),
    "splines, polar layers": network(layer="polar"),
    "splines, mirrored start": network(mirrored=True),
}


def fit_one(name: str) -> dict[str, Any]:
    """Train and measure one flow; its row."""
    data = load_data("digits", seed=SEED)
    assert isinstance(data.train, torch.Tensor) and data.validation is not None and data.scaling is not None
    action = ImageAction(GROUP, 1, size=8)
    torch.manual_seed(SEED)
    layers = [part for _ in range(BLOCKS) for part in (GActNorm(action), VARIANTS[name](action))]
    flow = EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)])
    schedule, optimizer = OneCycle(warmup=0.1), Adam(lr=1e-2, clip_norm=50.0)
    settings = FitSettings(STEPS, batch_size=64, seed=SEED, optimizer=optimizer, schedule=schedule)
    clock, cpu = time.perf_counter(), time.process_time()
    result = fit(flow, data.train, settings=settings, augment=data.augment, progress=False)
    seconds, cpu = time.perf_counter() - clock, time.process_time() - cpu
    train = data.scaling.bits_per_dim(-float(log_probs(flow, data.train[:400]).mean()), pixels=action.numel)
    slopes = [_slack(layer.branch, data.validation) for layer in layers if hasattr(layer, "branch")]
    return {
        "name": name,
        "seed": SEED,
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


def _slack(branch: nn.Module, x: torch.Tensor) -> tuple[float, float]:
    """A branch's certified bound, and the largest slope that is found."""
    branch = copy.deepcopy(branch).double()
    bound = float(branch.lipschitz_bound())  # type: ignore[operator]
    return bound, largest_slope(branch, x[:64].double())


def table(rows: list[dict[str, Any]]) -> str:
    """The comparison, as Markdown, the best first."""
    lines = [
        "| branch | parameters | bits/dim, validation | bits/dim, training | certified / reached | CPU seconds |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for row in sorted(rows, key=lambda row: row["group_bits_per_dim_validation"]):
        bits = f"{row['group_bits_per_dim_validation']:.3f} | {row['bits_per_dim_train']:.3f}"
        cells = f"{row['name']} | {row['parameters']} | {bits} | {row['ratio']:.2f} | {row['cpu_seconds']:.0f}"
        lines.append(f"| {cells} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="*", default=list(VARIANTS), metavar="NAME", help="run only these")
    parser.add_argument("--out", type=Path, default=RESULTS / "branches.jsonl")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = [json.loads(line) for line in arguments.out.read_text().splitlines()] if arguments.out.exists() else []
    done = {row["name"] for row in rows}
    for name in arguments.only:
        if name in done:
            continue
        row = fit_one(name)
        rows.append(row)
        with arguments.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(f"{name}: {row['group_bits_per_dim_validation']:.4f} bits/dim, {row['cpu_seconds']:.0f} s", flush=True)
    print(table(rows))
    arguments.out.with_suffix(".md").write_text(table(rows) + "\n")


if __name__ == "__main__":
    main()
