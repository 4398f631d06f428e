"""Estimators of the log-det of one residual layer on images: spread, products with the Jacobian, and CPU time.

    python -m benchmarks.log_dets

A network of one hidden layer under D4 on one channel of 16 x 16 pixels, with its weights as they start or with the
slopes of all splines at their bounds ("steep"), its last kernel as drawn or the mirror image of the first. "sd" is the
standard deviation, in nats, of the log-det of one event over random probes, and "bias" the mean over the events of the
error of the mean over the draws, which the standard deviation divided by the square root of the number of all draws
explains. A step is value, log-det and gradient; an evaluation is that with 4 fixed probes and their images. CPU time of
one thread, medians of interleaved rounds.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Column, RowRuns, columns, cpu_seconds, main
from pyro_gflows.actions import ImageAction
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import ExactLogDet, KrylovLogDet, RouletteLogDet, SeriesLogDet
from pyro_gflows.transforms import GResidual

ACTION, EVENTS, DRAWS, ROUNDS = ImageAction("D4", size=16), 8, 40, 5


@dataclass(frozen=True)
class Row:
    """A branch."""

    bound: float
    mirrored: bool
    steep: bool

    @property
    def name(self) -> str:
        """What ``--only`` calls it."""
        return f"{self.bound}, {'mirrored' if self.mirrored else 'as drawn'}, {'steep' if self.steep else 'fresh'}"

    def labels(self) -> Mapping[str, Any]:
        """All settings."""
        return asdict(self)

    def branch(self) -> LipschitzNetwork:
        """The branch, the same each time."""
        torch.manual_seed(0)
        branch = LipschitzNetwork(ACTION, width=4, bound=self.bound, mirrored=self.mirrored)
        with torch.no_grad():
            for name, weight in branch.named_parameters():
                if self.steep and name.endswith("theta"):
                    weight.fill_(1.0)
        return branch


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Standard deviations, biases, numbers of products and milliseconds, by estimator."""
    draws, rounds = (2, 1) if quick else (DRAWS, ROUNDS)
    branch = row.branch()
    x = torch.randn(EVENTS, *ACTION.event_shape, generator=torch.Generator().manual_seed(seed))
    layers = {
        name: GResidual(ACTION, branch, log_det=estimator)
        for name, estimator in {
            "exact": ExactLogDet(),
            "krylov": KrylovLogDet(),
            "unbiased": KrylovLogDet(unbiased=True),
            "roulette": RouletteLogDet(evaluation=_series(row)),
        }.items()
    }
    exact = _log_det(layers["exact"].train(), x)
    figures: dict[str, Any] = {"exact": float(exact.mean())}
    for name in ("krylov", "unbiased", "roulette"):
        found = torch.stack([_log_det(layers[name].train(), x) for _ in range(draws)])
        figures[f"sd_{name}"] = float(found.std(0).square().mean().sqrt())
        figures[f"bias_{name}"] = float((found.mean(0) - exact).mean())
    report = KrylovLogDet().report(branch, x, 3, lipschitz=row.bound)
    figures["products"] = float(report.products.mean())
    figures["observed"], figures["certified"] = float(report.observed.mean()), float(report.certified.mean())
    figures["length_roulette"], figures["terms_series"] = 4 + row.bound / (1 - row.bound), _series(row).terms
    steps = {f"step_{name}": _step(layer, x) for name, layer in layers.items()}
    scores = {f"score_{name}": _score(layers[name], x[:2]) for name in ("exact", "krylov", "roulette")}
    for mode, works in ((True, steps), (False, scores)):
        for layer in layers.values():
            layer.train(mode)
        figures.update(_milliseconds(works, rounds))
    return figures


def _series(row: Row) -> SeriesLogDet:
    return SeriesLogDet.within(1e-3, lipschitz=row.bound)


def _log_det(layer: GResidual, x: Tensor) -> Tensor:
    with torch.no_grad():
        return layer.inv_call_and_ladj(x)[1]


def _step(layer: GResidual, x: Tensor) -> Callable[[], object]:
    def step() -> None:
        layer.zero_grad()
        z, ladj = layer.inv_call_and_ladj(x)
        (0.5 * z.flatten(1).square().sum(-1) - ladj).mean().backward()

    return step


def _score(layer: GResidual, x: Tensor) -> Callable[[], object]:
    return lambda: _log_det(layer, x)


def _milliseconds(works: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    times: dict[str, list[float]] = {name: [] for name in works}
    for number in range(rounds + 1):
        for name, work in works.items():
            spent = 1e3 * cpu_seconds(work, calls=1)
            if number:  # the first round warms up
                times[name].append(spent)
    return {name: statistics.median(each) for name, each in times.items()}


def _figure(name: str, digits: int) -> Callable[[RowRuns[Row]], str]:
    return lambda found: f"{found[name]:.{digits}f}"


def _of_three(what: str, digits: int) -> Callable[[RowRuns[Row]], str]:
    names = ("krylov", "unbiased", "roulette")
    return lambda found: " / ".join(f"{found[f'{what}_{name}']:.{digits}f}" for name in names)


def _products(found: RowRuns[Row]) -> str:
    return f"{found['products']:.1f} / {found['length_roulette']:.0f} / {found['terms_series']}"


def _step_times(found: RowRuns[Row]) -> str:
    return " / ".join(f"{found[f'step_{name}']:.0f}" for name in ("krylov", "unbiased", "roulette", "exact"))


def _score_times(found: RowRuns[Row]) -> str:
    return " / ".join(f"{found[f'score_{name}']:.0f}" for name in ("krylov", "roulette", "exact"))


def _spread_of_bias(found: RowRuns[Row]) -> str:
    return f"{found['sd_krylov'] / math.sqrt(EVENTS * DRAWS):.2f}"


BENCHMARK = Benchmark(
    "log_dets",
    __doc__,
    [
        Row(bound, mirrored, steep)
        for bound in (0.9, 0.98, 0.99)
        for mirrored in (False, True)
        for steep in (False, True)
    ],
    run,
    columns(
        Column("bound, last kernel, weights", lambda found: found.row.name, left=True),
        Column("log-det", _figure("exact", 1)),
        Column("sd: Krylov / unbiased / roulette", _of_three("sd", 2)),
        Column("bias: Krylov / unbiased / roulette", _of_three("bias", 2)),
        Column("error of a bias", _spread_of_bias),
        Column("products: Krylov / roulette / series", _products),
        Column("observed", lambda found: f"{found['observed']:.1g}"),
        Column("certified", lambda found: f"{found['certified']:.1g}"),
        Column("step, ms: Krylov / unbiased / roulette / exact", _step_times),
        Column("evaluation, ms: Krylov / series / exact", _score_times),
    ),
)

if __name__ == "__main__":
    main(BENCHMARK)
