"""Affine couplings with and without padding, on densities of the plane under two sign flips.

    python -m benchmarks.augmented [--seeds 3]

One line of ``results/augmented.jsonl`` for each row and seed; those that are there already are not repeated. The table
in ``results/augmented.md`` is made anew after every run. The group flips the signs of both coordinates independently.
Without padding the couplings transform one coordinate at a time; with padding, the point and a padding of the same kind
in turn. All flows are trained alike, for 1,000 steps of 512 new points, and have about the same number of parameters,
those of the density q(a | x) of the padding included. Gaps are mean differences in nats from the exact log-density at
2,000 other points; with padding, from importance weights with 1, 64 and 512 new draws of the padding for each point.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness import (
    CPU_SECONDS,
    PARAMETERS,
    SEEDS,
    Benchmark,
    Column,
    RowRuns,
    Seeds,
    Stopwatch,
    columns,
    main,
)
from pyro_gflows import (
    AugmentedFlow,
    EquivariantFlow,
    GActNorm,
    InvariantNormal,
    LinearAction,
    VectorAction,
    augment,
    fit,
    g_coupling,
)
from pyro_gflows.evaluation import gap, mean_and_error
from pyro_gflows.flows import g_padding
from pyro_gflows.targets import density
from pyro_gflows.training import Adam, FitSettings, OneCycle

STEPS, BATCH, POINTS, DRAWS = 1000, 512, 2000, (1, 64, 512)


@dataclass(frozen=True)
class Row:
    """A flow on a density.

    Args:
        density: The name of the density.
        padded: Whether the flow is on the padded space.
    """

    density: str
    padded: bool

    @property
    def name(self) -> str:
        """The density, and whether there is a padding."""
        return f"{self.density}, {'with' if self.padded else 'without'} padding"

    def labels(self) -> Mapping[str, str]:
        """The name."""
        return {"name": self.name}

    def flow(self) -> EquivariantFlow | AugmentedFlow:
        """The flow with new weights."""
        signs = VectorAction.signs(2)
        if not self.padded:
            return couplings(signs, blocks=8, width=16)
        flow = couplings(signs.direct_sum(signs), blocks=4, width=8)
        return augment(flow, padding=g_padding(signs, signs, layers=1, width=8))


def couplings(action: LinearAction, *, blocks: int, width: int) -> EquivariantFlow:
    """A flow of affine couplings on a normal base."""
    layers = [part for _ in range(blocks) for part in (GActNorm(action), g_coupling(action, width=width, depth=1))]
    return EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)])


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train and measure one flow."""
    target = density(row.density)
    torch.manual_seed(seed)
    flow = row.flow()
    settings = FitSettings(
        2 if quick else STEPS,
        batch_size=BATCH,
        seed=seed,
        optimizer=Adam(lr=1e-2, clip_norm=10.0),
        schedule=OneCycle(warmup=0.1),
    )
    with Stopwatch() as watch:
        fit(flow, target, settings=settings, progress=False)
    found: dict[str, float] = {}
    generator = torch.Generator().manual_seed(1000 + seed)
    if isinstance(flow, AugmentedFlow):
        x = target.sample(20 if quick else POINTS, generator)
        exact = target.log_prob(x.double())
        torch.manual_seed(seed)
        for draws in DRAWS:
            bound = flow.importance_bound(x, draws=draws, batch_size=2**16)
            found[f"gap_{draws}"], found[f"error_{draws}"] = mean_and_error(exact - bound)
    else:
        found["gap"], found["error"] = gap(flow, target, n=POINTS, generator=generator)
    return {"parameters": sum(p.numel() for p in flow.parameters()), **found, **watch.figures()}


def _gaps(found: RowRuns[Row]) -> str:
    if not found.row.padded:
        return f"{found.median('gap'):.3f}"
    return ", ".join(f"{found.median(f'gap_{draws}'):.3f} ({draws})" for draws in DRAWS)


def _worst(found: RowRuns[Row]) -> str:
    return f"{found.largest(f'gap_{DRAWS[-1]}' if found.row.padded else 'gap'):.3f}"


BENCHMARK = Benchmark(
    "augmented",
    __doc__,
    [Row(name, padded) for name in ("8gaussians", "rings") for padded in (False, True)],
    run,
    columns(
        Column("density, flow", lambda found: found.row.name, left=True),
        PARAMETERS,
        SEEDS,
        Column("gap, median (draws of the padding)", _gaps),
        Column("worst, with most draws", _worst),
        CPU_SECONDS,
    ),
    seeds=Seeds(3),
)

if __name__ == "__main__":
    main(BENCHMARK)
