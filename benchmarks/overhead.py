"""What a flow's distribution costs beside its transform and its base: a score of fresh data, and a draw with its score.

    python -m benchmarks.overhead

CPU time of one thread, in this one process; each ratio is the median of rounds in which both sides are timed, with the
quartiles beside it. Nothing is kept: these are times of the machine at hand. "By hand" is
``transform.inv_call_and_ladj`` and the base's ``log_prob``, or, for a draw, the base's ``rsample``,
``transform.call_and_ladj`` and the base's ``log_prob``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from benchmarks.harness import Benchmark, Column, RowRuns, columns, cpu_seconds, interleaved_ratios, main
from pyro_gflows import (
    EquivariantFlow,
    EquivariantTransform,
    InvariantNormal,
    VectorAction,
    g_autoregressive,
    g_coupling,
    g_radial,
    g_residual,
)
from pyro_gflows.guides.default_flow import guide_transforms
from pyro_gflows.testing import randomize_

EVENTS = 64
ROUNDS = 61
CALLS = 4

POINTS, PLANE = VectorAction.rows("S3", features=2), VectorAction.plane("D8")
SIGNS, ROTATIONS = VectorAction.signs(3), VectorAction.plane("O(2)")
FLOWS: dict[str, Callable[[], EquivariantFlow]] = {
    "4 couplings, rows of S3": lambda: flow(POINTS, [g_coupling(POINTS, width=8) for _ in range(2)]),
    "4 residual layers, plane D8": lambda: flow(PLANE, [g_residual(PLANE) for _ in range(4)]),
    "2 autoregressive layers, signs": lambda: flow(SIGNS, [g_autoregressive(SIGNS, width=8) for _ in range(2)]),
    "2 radial layers, O(2)": lambda: flow(ROTATIONS, [g_radial(ROTATIONS) for _ in range(2)]),
    "the default guide, rows of S3": lambda: flow(POINTS, guide_transforms(POINTS)),
}


def flow(action: VectorAction, transforms: Sequence[EquivariantTransform]) -> EquivariantFlow:
    """The flow with random, non-trivial weights, in evaluation."""
    torch.manual_seed(0)
    return randomize_(EquivariantFlow(InvariantNormal(action), transforms), scale=0.1).eval()


@dataclass(frozen=True)
class Row:
    """One of FLOWS."""

    name: str

    def labels(self) -> Mapping[str, str]:
        """The name."""
        return {"name": self.name}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Times by hand in microseconds, and ratios to them: lower quartile, median and upper quartile."""
    rounds = 3 if quick else ROUNDS
    made = FLOWS[row.name]()
    density, transform, base = made.dist, made.transform, made.base
    shape = torch.Size([EVENTS])
    x = density.sample(shape).clone()

    def score_by_hand() -> torch.Tensor:
        z, ladj = transform.inv_call_and_ladj(x)
        return base.log_prob(z) + ladj

    def draw_and_score() -> torch.Tensor:
        return density.log_prob(density.rsample(shape))

    def draw_by_hand() -> torch.Tensor:
        z = base.rsample(shape)
        _, ladj = transform.call_and_ladj(z)
        return base.log_prob(z) - ladj

    score_by_hand(), draw_by_hand(), draw_and_score()  # constants are made at the first call

    def ratios(work: Callable[[], object], by_hand: Callable[[], object]) -> tuple[float, float, float]:
        return interleaved_ratios(work, by_hand, calls=CALLS, rounds=rounds)

    return {
        "score_by_hand": 1e6 * cpu_seconds(score_by_hand, calls=CALLS),
        "distribution": ratios(lambda: density.log_prob(x), score_by_hand),
        "dist_each_time": ratios(lambda: made.dist.log_prob(x), score_by_hand),
        "draw_by_hand": 1e6 * cpu_seconds(draw_by_hand, calls=CALLS),
        "drawn_and_scored": ratios(draw_and_score, draw_by_hand),
    }


def _microseconds(figure: str) -> Callable[[RowRuns[Row]], str]:
    return lambda found: f"{found[figure]:.0f}"


def _ratio(figure: str) -> Callable[[RowRuns[Row]], str]:
    return lambda found: "{1:.3f} ({0:.3f}-{2:.3f})".format(*found[figure])


BENCHMARK = Benchmark(
    "overhead",
    __doc__,
    [Row(name) for name in FLOWS],
    run,
    columns(
        Column("flow", lambda found: found.row.name, left=True),
        Column("score by hand, us", _microseconds("score_by_hand")),
        Column("distribution", _ratio("distribution")),
        Column("flow.dist each time", _ratio("dist_each_time")),
        Column("draw by hand, us", _microseconds("draw_by_hand")),
        Column("drawn and scored", _ratio("drawn_and_scored")),
    ),
    kept=False,
)

if __name__ == "__main__":
    main(BENCHMARK)
