"""What a flow's distribution costs beside its transform and its base: a score of fresh data, and a draw with its score.

    python -m benchmarks.overhead

CPU time of one thread, in this one process; each ratio is the median of rounds in which both sides take turns, with the
quartiles beside it. "By hand" is ``transform.inv_call_and_ladj`` and the base's ``log_prob``, or, for a draw, the
base's ``rsample``, ``transform.call_and_ladj`` and the base's ``log_prob``.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch

from pyro_gflows import (
    EquivariantFlow,
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

ROWS = VectorAction.rows("S3", features=2)
FLOWS: dict[str, Callable[[], EquivariantFlow]] = {
    "4 couplings, rows of S3": lambda: flow(ROWS, [g_coupling(ROWS, width=8) for _ in range(2)]),
    "4 residual layers, plane D8": lambda: flow(PLANE, [g_residual(PLANE) for _ in range(4)]),
    "2 autoregressive layers, signs": lambda: flow(SIGNS, [g_autoregressive(SIGNS, width=8) for _ in range(2)]),
    "2 radial layers, O(2)": lambda: flow(TURNS, [g_radial(TURNS) for _ in range(2)]),
    "the default guide, rows of S3": lambda: flow(ROWS, guide_transforms(ROWS)),
}
PLANE, SIGNS, TURNS = VectorAction.plane("D8"), VectorAction.signs(3), VectorAction.plane("O(2)")


def flow(action: VectorAction, transforms: list) -> EquivariantFlow:
    """The flow with random, non-trivial weights, in evaluation."""
    torch.manual_seed(0)
    return randomize_(EquivariantFlow(InvariantNormal(action), transforms), scale=0.1).eval()


def microseconds(work: Callable[[], object]) -> float:
    """CPU time of one call."""
    began = time.process_time()
    for _ in range(CALLS):
        work()
    return (time.process_time() - began) / CALLS * 1e6


def ratio(work: Callable[[], object], by_hand: Callable[[], object]) -> str:
    """The median of the ratios of neighboring rounds, and their quartiles."""
    microseconds(work), microseconds(by_hand)
    ratios = [microseconds(work) / microseconds(by_hand) for _ in range(ROUNDS)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return f"{middle:.3f} ({low:.3f}-{high:.3f})"


def measure(name: str) -> str:
    """One line of Markdown."""
    made = FLOWS[name]()
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
    columns = [
        f"{microseconds(score_by_hand):.0f}",
        ratio(lambda: density.log_prob(x), score_by_hand),
        ratio(lambda: made.dist.log_prob(x), score_by_hand),
        f"{microseconds(draw_by_hand):.0f}",
        ratio(draw_and_score, draw_by_hand),
    ]
    return f"| {name} | {' | '.join(columns)} |"


if __name__ == "__main__":
    torch.set_num_threads(1)
    print("| flow | score by hand, us | distribution | flow.dist each time | draw by hand, us | drawn and scored |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    for name in FLOWS:
        print(measure(name), flush=True)
