"""Log Z, mean energy and entropy of the particle targets, by two methods that share only the moves.

    python -m benchmarks.particle_constants [--seeds 3] [--only NAME ...]

Every run is one line of ``results/particle_constants.jsonl``; the table in ``results/particle_constants.md`` is made
anew after every run.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from benchmarks.harness import CPU_SECONDS, SEEDS, Benchmark, Column, Seeds, Stopwatch, columns, main
from benchmarks.replicas import Replicas, soft_core, weakened
from pyro_gflows.targets import DoubleWell, LennardJones, SequentialMonteCarlo

__all__ = ["BENCHMARK"]

_TARGETS = {
    "dw4": DoubleWell(),
    "lj13": LennardJones(),
}
_PATHS = {
    "dw4": weakened(_TARGETS["dw4"], 2.0),
    "lj13": soft_core(13, 2.0),
}
_SCALES = {"dw4": 2.0, "lj13": 1.0}


@dataclass(frozen=True)
class Row:
    """A target and a method.

    Attributes:
        data: The name of the target.
        method: The sampler.
        draws: For sequential Monte Carlo, the number of chains.
    """

    data: str
    method: SequentialMonteCarlo | Replicas
    draws: int = 0

    @property
    def name(self) -> str:
        """What ``--only`` calls it."""
        return f"{self.data}-{'replicas' if isinstance(self.method, Replicas) else 'smc'}"

    def labels(self) -> Mapping[str, Any]:
        """The target, the method and its settings."""
        return {"name": self.name, "method": repr(self.method), "draws": self.draws}


ROWS = [
    Row("dw4", SequentialMonteCarlo(steps=600, curve=2.0, final_sweeps=600, scale=2.0), 20_000),
    Row("dw4", Replicas(points=16)),
    Row("lj13", SequentialMonteCarlo(steps=1500, curve=4.0, final_sweeps=600, scale=1.0), 10_000),
    Row("lj13", Replicas(points=24)),
]


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Estimate the constants once."""
    generator, target = torch.Generator().manual_seed(seed), _TARGETS[row.data]
    with Stopwatch() as watch:
        if isinstance(row.method, Replicas):
            method = replace(row.method, burn_in=20, sweeps=20) if quick else row.method
            found = method(target, _PATHS[row.data], scale=_SCALES[row.data], generator=generator)
        else:
            sampler = replace(row.method, steps=20, final_sweeps=5) if quick else row.method
            report = sampler(target, 1000 if quick else row.draws, generator, progress=True).report
            found = {name: getattr(report, name) for name in ("log_z", "energy", "entropy", "virial")}
    figures = {name: value.value for name, value in found.items()}
    errors = {f"{name}_error": value.error for name, value in found.items()}
    return {**figures, **errors, **watch.figures()}


def _column(name: str) -> Column:
    def shown(found: Any) -> str:
        if name not in found.runs[0]:
            return "-"
        means, errors = (found.values(key) for key in (name, f"{name}_error"))
        error = sum(e * e for e in errors) ** 0.5 / len(errors)
        return f"{sum(means) / len(means):.4f} +- {error:.4f}"

    return Column(name.replace("_", " "), shown)


BENCHMARK = Benchmark(
    "particle_constants",
    __doc__,
    ROWS,
    run,
    columns(
        Column("target and method", lambda found: found.row.name),
        SEEDS,
        _column("log_z"),
        _column("energy"),
        _column("entropy"),
        _column("virial"),
        CPU_SECONDS,
    ),
    seeds=Seeds(1),
)

if __name__ == "__main__":
    main(BENCHMARK)
