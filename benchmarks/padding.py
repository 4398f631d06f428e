"""The map x -> -x under D4, learned by residual flows with and without padding.

    python -m benchmarks.padding [--seeds 3]

One line of ``results/padding.jsonl`` for each row and seed; those that are there already are not repeated. The table in
``results/padding.md`` is made anew after every run. Every row is one chain of residual layers of ridge functions that
D4 commutes with, trained for 2,000 steps of 256 normal draws to map x to -x, or, with padding, (x, 0) to (-x, 0).
Errors are squared distances from the target at 10,000 other draws. Without padding every equivariant residual flow
maps each chamber (the region between two neighboring mirror lines) to itself; there the point nearest to -x is 0, so
the error is at least |x|^2 at every single x. "Least excess" is the smallest error less |x|^2.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import (
    CPU_SECONDS,
    PARAMETERS,
    SEEDS,
    Benchmark,
    Column,
    Seeds,
    Stopwatch,
    columns,
    main,
)
from pyro_gflows import Compose, GResidual, LinearAction, VectorAction
from pyro_gflows.nn import LipschitzSum, Ridges

STEPS, BATCH, EVALUATED, LR, BOUND = 2000, 256, 10_000, 1e-2, 0.99


@dataclass(frozen=True)
class Row:
    """A chain of residual layers.

    Args:
        name: Its name.
        padding: How many vectors of the plane are the padding.
        layers: The number of layers.
        terms: The number of ridge functions of a layer.
    """

    name: str
    padding: int
    layers: int = 8
    terms: int = 4

    def labels(self) -> Mapping[str, str]:
        """The name."""
        return {"name": self.name}

    def flow(self) -> Compose:
        """The chain with new weights."""
        action = VectorAction.plane("D4", copies=1 + self.padding)
        return Compose([GResidual(action, self._branch(action), fast="sample") for _ in range(self.layers)])

    def _branch(self, action: LinearAction) -> LipschitzSum:
        return LipschitzSum([Ridges(action, self.terms, knots=8)], bound=BOUND)


def errors(flow: Compose, x: Tensor) -> Tensor:
    """The squared distances of the values at the padded x from the padded -x."""
    padded = torch.nn.functional.pad(x, (0, flow.action_in.numel - 2))
    y = padded
    for layer in flow.transforms:
        y = y + layer.branch(y)  # what the layers compute, without their log-dets
    return (y + padded).square().sum(-1)


def chamber(x: Tensor) -> Tensor:
    """The number of the chamber of D4 in which a point of the plane lies, 0 to 7."""
    return torch.floor(torch.atan2(x[:, 1], x[:, 0]) / (math.pi / 4)).long() % 8


def trained(row: Row, *, seed: int, steps: int) -> Compose:
    """A chain after training, in float64."""
    torch.manual_seed(seed)
    flow = row.flow()
    optimizer = torch.optim.Adam(flow.parameters(), lr=LR)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, LR, total_steps=steps)
    for _ in range(steps):
        loss = errors(flow, torch.randn(BATCH, 2)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return flow.double().eval()


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train and measure one chain."""
    with Stopwatch() as watch:
        flow = trained(row, seed=seed, steps=5 if quick else STEPS)
    generator = torch.Generator().manual_seed(1000 + seed)
    x = torch.randn(EVALUATED, 2, dtype=torch.float64, generator=generator)
    with torch.no_grad():
        found = errors(flow, x)
        y = flow(torch.nn.functional.pad(x, (0, flow.action_in.numel - 2)))[:, :2]
    return {
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "error": float(found.mean()),
        "squared_norm": float(x.square().sum(-1).mean()),
        "least_excess": float((found - x.square().sum(-1)).min()),
        "same_chamber": float((chamber(x) == chamber(y)).double().mean()),
        **watch.figures(),
    }


BENCHMARK = Benchmark(
    "padding",
    __doc__,
    [
        Row("with padding", 1),
        Row("without padding", 0),
        Row("without padding, twice the layers", 0, layers=16),
    ],
    run,
    columns(
        Column("flow", lambda found: found.row.name, left=True),
        PARAMETERS,
        SEEDS,
        Column("mean error, median of seeds", lambda found: f"{found.median('error'):.3g}"),
        Column("largest of seeds", lambda found: f"{found.largest('error'):.3g}"),
        Column("mean of abs(x)^2", lambda found: f"{found.mean('squared_norm'):.3f}"),
        Column("least excess", lambda found: f"{found.least('least_excess'):.2g}"),
        Column("same chamber", lambda found: f"{100 * found.mean('same_chamber'):.1f}%"),
        CPU_SECONDS,
    ),
    seeds=Seeds(3),
)

if __name__ == "__main__":
    main(BENCHMARK)
