"""Densities on the torus of two angles, fitted from their energy, and one from samples with and without its symmetry.

    python -m benchmarks.torus [--seeds 3] [--only NAME ...]

Every run is one line of ``results/torus.jsonl``; the table in ``results/torus.md`` is made anew after every run.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness import (
    INVARIANCE,
    PARAMETERS,
    SECONDS,
    SEEDS,
    STEPS,
    Benchmark,
    Column,
    Seeds,
    Stopwatch,
    columns,
    main,
)
from benchmarks.recipes import training_text
from pyro_gflows.evaluation import energy_report, gap, invariance_error
from pyro_gflows.flows.families import build_action, build_flow
from pyro_gflows.spaces import Torus
from pyro_gflows.targets import TorusDensity, density
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit, fit_energy

DRAWS = 100_000
TEST_STREAM = 1_000_000_007  # of the test points, which training never sees
INVARIANCE_ROWS = 128


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: For ``--only``.
        data: The density.
        group: The symmetry of the flow.
        flow: A family of flows.
        size: Its keywords.
        settings: How it is trained.
        from_energy: Whether it is fitted to the log-density, without samples; else to fresh samples.
    """

    name: str
    data: str
    group: str
    flow: str
    size: Mapping[str, int | str]
    settings: FitSettings
    from_energy: bool

    def labels(self) -> Mapping[str, str]:
        """Name, and what the outcome depends on: flow, training and measurement."""
        size = " ".join(f"{key}={value}" for key, value in self.size.items())
        fitted = "energy" if self.from_energy else "samples"
        measured = f"{DRAWS} draws, points of stream {TEST_STREAM}"
        recipe = f"{self.group} {self.flow} {size}; {fitted}; {training_text(self.settings)}; {measured}"
        return {"name": self.name, "recipe": recipe}


def _settings(steps: int, lr: float) -> FitSettings:
    return FitSettings(steps, batch_size=512, optimizer=Adam(lr=lr), schedule=OneCycle(warmup=0.1, end=0.0))


_RESIDUAL = {"blocks": 6, "width": 8}
_GRADIENT = {"blocks": 6, "frequencies": 4, "waves": 4}
_GRADIENT_PLAIN = {"blocks": 6, "frequencies": 8, "waves": 2}  # of as many parameters; the best of three such sizes
_SAMPLED = {"fast": "sample"}

ROWS: Sequence[Row] = [
    *(
        Row(name, f"torus-{name}", "C1", "coupling", {"blocks": 1, "width": 8}, _settings(600, 1e-2), True)
        for name in ("unimodal", "multimodal", "correlated")
    ),
    *(
        Row(f"{name}-gradient", f"torus-{name}", "C1", "gradient", _GRADIENT | _SAMPLED, _settings(600, 3e-2), True)
        for name in ("unimodal", "multimodal", "correlated")
    ),
    Row("square", "torus-square", "D4", "residual", _RESIDUAL, _settings(600, 2e-2), False),
    Row("square-residual", "torus-square", "C1", "residual", _RESIDUAL, _settings(600, 2e-2), False),
    *(
        Row(
            f"square-gradient-{group}{end}",
            "torus-square",
            group,
            "gradient",
            size | fast,
            _settings(600, 3e-2),
            energy,
        )
        for energy, end, fast in ((False, "", {}), (True, "-energy", _SAMPLED))
        for group, size in (("D4", _GRADIENT), ("C1", _GRADIENT_PLAIN))
    ),
    *(
        # D4 exchanges the angles, so that nothing can be split; its sign flips (D2) leave both as they are
        Row(name, "torus-square", group, "coupling", {"blocks": 2, "width": width}, _settings(600, 1e-2), False)
        for name, group, width in (("square-coupling", "C1", 8), ("square-coupling-D2", "D2", 6))
    ),
]


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Train one flow and measure it: draws of the flow for KL(q, p) and ESS, fresh samples for KL(p, q)."""
    target = density(row.data)
    assert isinstance(target, TorusDensity)
    settings = dataclasses.replace(row.settings, seed=seed)
    draws = DRAWS
    if quick:
        settings, draws = dataclasses.replace(settings, steps=20), DRAWS // 50
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = build_flow(row.flow, build_action(row.group, Torus((2,))), size=row.size)
    with Stopwatch() as watch:
        if row.from_energy:
            fit_energy(flow, target.log_density, settings=settings, progress=False)
        else:
            fit(flow, target, settings=settings, progress=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed + TEST_STREAM)
        report = energy_report(flow, target.log_density, draws=draws)
    generator = torch.Generator().manual_seed(seed + TEST_STREAM)
    forward_kl, error = gap(flow, target, n=draws, generator=generator)
    rows = target.sample(INVARIANCE_ROWS, generator).double()
    return {
        "steps": settings.steps,
        "parameters": sum(p.numel() for p in flow.parameters()),
        "ess": report.ess,
        "reverse_kl": report.reverse_kl,
        "log_z_error": report.log_normalizer - target.log_z,
        "forward_kl": forward_kl,
        "forward_kl_standard_error": error,
        "invariance_error": invariance_error(copy.deepcopy(flow).double(), rows, flow.action, generator=generator),
        **watch.figures(),
    }


BENCHMARK = Benchmark(
    "torus",
    __doc__,
    ROWS,
    run,
    columns(
        Column("density", lambda found: found.row.data, left=True),
        Column("flow", lambda found: f"{found.row.group}: {found.row.flow}", left=True),
        Column("fitted to", lambda found: "its energy" if found.row.from_energy else "samples", left=True),
        PARAMETERS,
        STEPS,
        SEEDS,
        Column("ESS, median (worst)", lambda found: f"{found.median('ess'):.4f} ({found.least('ess'):.4f})"),
        Column(
            "KL(q, p), median (worst)",
            lambda found: f"{found.median('reverse_kl'):.5f} ({found.largest('reverse_kl'):.5f})",
        ),
        Column(
            "KL(p, q), median (worst)",
            lambda found: f"{found.median('forward_kl'):.5f} ({found.largest('forward_kl'):.5f})",
        ),
        SECONDS,
        INVARIANCE,
    ),
    seeds=Seeds(3),
)

if __name__ == "__main__":
    main(BENCHMARK)
