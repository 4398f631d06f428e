"""Eight Gaussians on a circle, fitted from their energy alone: reverse divergence, with and without the symmetry.

    python -m benchmarks.energies [--seeds 3] [--only NAME ...]

Every run is one line of ``results/energies.jsonl``; runs that are there already are not repeated, so the command may be
stopped and started at will. The table in ``results/energies.md`` is made anew after every run.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import (
    CPU_SECONDS,
    PARAMETERS,
    SEEDS,
    STEPS,
    Benchmark,
    Column,
    Seeds,
    Stopwatch,
    columns,
    main,
)
from benchmarks.planar_comparators import plain_residual_flow
from benchmarks.recipes import training_text
from pyro_gflows import LinearAction
from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal, Symmetrized
from pyro_gflows.evaluation import importance_report, mean_and_error
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.learnable import learnable
from pyro_gflows.guides import find_mode
from pyro_gflows.nn import LipschitzSum, Ridges
from pyro_gflows.targets import Density, EightGaussians
from pyro_gflows.training import Adam, FitSettings, OneCycle, Ramp, fit_energy
from pyro_gflows.transforms import EquivariantTransform, GActNorm, g_residual

DRAWS = 1_000_000  # for the weights of the modes, of which the first SCORED are scored
SCORED = 200_000
SAMPLES = 20_000  # of the target
TEST_STREAM = 1_000_000_007
AT_ONCE = 10_000


class FarGaussians(EightGaussians):
    """The same with gaps in which there is next to nothing: radius / sd = 12 in place of 8."""

    name = "8gaussians, radius/sd 12"
    radius = 12 * EightGaussians.sd
    floor = 2.837875  # of eight Gaussians that do not overlap; they do by less than 1e-5 nats


TARGETS: Mapping[int, Density] = {8: EightGaussians(), 12: FarGaussians()}


def equivariant(blocks: int, *, terms: int, knots: int, limit: float) -> EquivariantFlow:
    """Residual layers of ridge terms of D8 on the isotropic normal distribution; fast to sample."""
    action = VectorAction.plane("D8")
    layers: list[EquivariantTransform] = []

    def branch(action: LinearAction) -> LipschitzSum:
        return LipschitzSum([Ridges(action, terms, knots=knots, limit=limit)])

    for _ in range(blocks):
        layers += [GActNorm(action), g_residual(action, branch=branch, fast="sample")]
    return EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)])


def plain(blocks: int, *, terms: int, knots: int, limit: float) -> EquivariantFlow:
    """Residual layers without a symmetry; fast to sample."""
    return plain_residual_flow(blocks, terms=terms, knots=knots, limit=limit, fast="sample")


def symmetrized(blocks: int, *, terms: int, knots: int, limit: float, spread: float, width: float) -> Symmetrized:
    """The average over C8 of a flow without a symmetry; fast to score, as each draw is scored at its 8 images.

    It starts off the center and narrow, so that it falls into one mode. One that starts at the center, or wide between
    two modes, stays on several of them, with a thread of draws in between, as a plain flow does.

    ``spread`` is the standard deviation of each coordinate of its start, about as far out as the target goes;
    ``width`` is its standard deviation there.
    """
    flow = plain_residual_flow(blocks, terms=terms, knots=knots, limit=limit)
    last = flow.transforms[-1]
    assert isinstance(last, GActNorm)
    torch.nn.init.constant_(last.log_scale, math.log(width))
    torch.nn.init.normal_(last.shift, std=spread / width)
    return Symmetrized(flow.dist, VectorAction.plane("C8"))


def orbit(steps: int, *, width: int, spread: float) -> OrbitFlow:
    """The average over C8 of a coupling flow that starts at a mode, found from points of that spread."""
    return OrbitFlow(VectorAction.plane("C8"), steps=steps, width=width, spread=spread)


KINDS: Mapping[str, Callable[..., Any]] = {
    "D8 flow of an isotropic normal": equivariant,
    "plain flow": plain,
    "Symmetrized(plain flow), C8": symmetrized,
    "Symmetrized(flow) from a mode (OrbitFlow), C8": orbit,
}


@dataclass(frozen=True)
class Row:
    """One line of the table.

    Attributes:
        name: For ``--only``.
        ratio: Radius / sd of the target.
        kind: One of KINDS.
        size: Its keywords.
        settings: How it is trained.
        annealing: Inverse temperature; None is 1.
    """

    name: str
    ratio: int
    kind: str
    size: Mapping[str, float]
    settings: FitSettings
    annealing: Ramp | None = None

    def labels(self) -> Mapping[str, str]:
        """Name, and what the outcome depends on: flow, training and measurement."""
        size = " ".join(f"{key}={value:g}" for key, value in self.size.items())
        measured = f"{DRAWS}, {SCORED} and {SAMPLES} draws of stream {TEST_STREAM}"
        training = f"{training_text(self.settings)}; {self.annealing}"
        return {"name": self.name, "recipe": f"{self.ratio}: {self.kind} {size}; {training}; {measured}"}


def _settings(steps: int, *, batch_size: int, lr: float = 2e-2) -> FitSettings:
    schedule = OneCycle(warmup=0.1, end=0.0)
    return FitSettings(steps=steps, batch_size=batch_size, optimizer=Adam(lr=lr), schedule=schedule)


_HOT_START = Ramp(start=0.1, until=0.2)
_BLOCKS = {8: 10, 12: 20}

ROWS: Sequence[Row] = [
    row
    for ratio, blocks in _BLOCKS.items()
    for row in (
        Row(
            f"equivariant-{ratio}",
            ratio,
            "D8 flow of an isotropic normal",
            {"blocks": blocks, "terms": 4, "knots": 16, "limit": 4.0},
            _settings(1200, batch_size=1024),
            annealing=_HOT_START,
        ),
        Row(
            f"symmetrized-{ratio}",
            ratio,
            "Symmetrized(plain flow), C8",
            {"blocks": 2, "terms": 4, "knots": 9, "limit": 4.0, "spread": 3.0, "width": 0.3},
            _settings(800, batch_size=512),
        ),
        Row(
            f"orbit-{ratio}",
            ratio,
            "Symmetrized(flow) from a mode (OrbitFlow), C8",
            {"steps": 4, "width": 16, "spread": 3.0},
            _settings(300, batch_size=256, lr=5e-3),
        ),
        Row(
            f"plain-{ratio}",
            ratio,
            "plain flow",
            {"blocks": blocks, "terms": 4, "knots": 9, "limit": 4.0},
            _settings(1200, batch_size=1024),
            annealing=_HOT_START,
        ),
    )
]


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Fit one density and measure it by fresh draws and by samples that training never sees."""
    target = TARGETS[row.ratio]
    settings = dataclasses.replace(row.settings, seed=seed)
    if quick:
        settings = dataclasses.replace(settings, steps=20)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        flow = KINDS[row.kind](**row.size)
        if isinstance(flow, OrbitFlow):
            starts = row.size["spread"] * torch.randn(32, 2)
            flow.start_at(*find_mode(target.log_prob, starts))
    with Stopwatch() as watch:
        report = fit_energy(flow, target.log_prob, settings=settings, annealing=row.annealing, progress=False)
    assert report.run is not None
    figures = {
        "steps": report.run.steps,
        "parameters": sum(p.numel() for p in learnable(flow).module.parameters()),
        **watch.figures(),
    }
    return {**figures, **measure(flow, target, seed=seed, shrink=100 if quick else 1)}


@torch.no_grad()
def measure(flow: Any, target: Density, *, seed: int, shrink: int = 1) -> dict[str, float]:
    """All figures; both densities are normalized, so that each divergence is a mean with nothing estimated in it."""
    distribution = learnable(flow).distribution
    with torch.random.fork_rng():
        torch.manual_seed(seed + TEST_STREAM)
        scores, counts = [], torch.zeros(8)
        for start in range(0, DRAWS // shrink, AT_ONCE):
            x = distribution.sample(torch.Size([AT_ONCE]))
            counts += torch.bincount(nearest(x), minlength=8)
            if start < SCORED // shrink:
                scores.append(target.log_prob(x.double()) - distribution.log_prob(x).double())
        samples = target.sample(SAMPLES // shrink)
    weights = torch.cat(scores)
    importance = importance_report(weights)
    kl, kl_error = mean_and_error(-weights)
    own = target.log_prob(samples.double())
    gaps = own - torch.cat([distribution.log_prob(part).double() for part in samples.split(AT_ONCE)])
    forward, forward_error = mean_and_error(gaps)
    entropy = -float(own.mean())
    return {
        "ess": importance.ess,
        "trimmed_ess": importance.trimmed_ess,
        "pareto_k": importance.pareto_k,
        "log_normalizer": importance.log_mean_weight,
        "kl": kl,
        "kl_error": kl_error,
        "forward_kl": forward,
        "forward_kl_error": forward_error,
        "forward_nll": entropy + forward,
        "entropy": entropy,
        "worst_mode_weight": float((8 * counts / counts.sum() - 1).abs().max()),
    }


def nearest(x: Tensor) -> Tensor:
    """Which center is nearest, 0 to 7: all are equally far from 0, so the angle decides."""
    return (torch.atan2(x[:, 1], x[:, 0]) / (torch.pi / 4)).round().long() % 8


BENCHMARK = Benchmark(
    "energies",
    __doc__,
    ROWS,
    run,
    columns(
        Column("radius/sd", lambda found: f"{found.row.ratio}"),
        Column("density", lambda found: found.row.kind, left=True),
        PARAMETERS,
        STEPS,
        SEEDS,
        Column("ESS, median (worst)", lambda found: f"{found.median('ess'):.4f} ({found.least('ess'):.4f})"),
        Column("KL(q, p), median (worst)", lambda found: f"{found.median('kl'):.5f} ({found.largest('kl'):.5f})"),
        Column(
            "KL(p, q), median (worst)",
            lambda found: f"{found.median('forward_kl'):.5f} ({found.largest('forward_kl'):.5f})",
        ),
        Column(
            "forward NLL (entropy)",
            lambda found: f"{found.median('forward_nll'):.4f} ({found.median('entropy'):.4f})",
        ),
        Column("worst mode weight", lambda found: f"{100 * found.largest('worst_mode_weight'):.1f} %"),
        Column("Pareto k, worst", lambda found: f"{found.largest('pareto_k'):.2f}"),
        CPU_SECONDS,
    ),
    seeds=Seeds(3),
)

if __name__ == "__main__":
    main(BENCHMARK)
