"""How many evaluations the inverse of a residual layer takes, and how long, beside the Banach iteration.

    python -m benchmarks.inverses

One line of ``results/inverses.jsonl`` for each row; rows that are there already are not repeated. Every root has a
residual of at most 1e-6 in float64, which both solvers certify alike. ``evaluations`` are those of the branch, over the
whole batch until its slowest row is done. ``time`` is the CPU time of one thread over that of the Banach iteration,
the two timed alternately: the median of the rounds, with the quartiles beside it.

- "fresh": the layer as it is made.
- "trained": after 60 steps of maximum likelihood on a mixture of normals (vectors alone).
- "steep": every slope of the splines near 1, so that the layer comes close to its bound.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Run, grouped, interleaved_ratios, main, markdown
from pyro_gflows import GResidual, ImageAction, VectorAction, g_residual
from pyro_gflows.actions import LinearAction
from pyro_gflows.nn import LipschitzNetwork, kernels_once, lipschitz_branch
from pyro_gflows.numerics import BanachSolver, Solver, SolverReport

TOLERANCE = 1e-6
ROUNDS = 5
BOUNDS = (0.9, 0.97, 0.99)


@dataclass(frozen=True)
class Kind:
    """Events, and the branch of the layer on them.

    Attributes:
        action: How the group acts.
        branch: Makes the branch from the action and ``bound=``.
        batch: The number of events.
        states: In which states the layer is inverted.
    """

    action: Callable[[], LinearAction]
    branch: Callable[..., Any]
    batch: int
    states: tuple[str, ...]


def _network(width: int) -> Callable[..., Any]:
    return partial(LipschitzNetwork, width=width, mirrored=True)


KINDS = {
    "vector, plane D8, d = 2": Kind(
        lambda: VectorAction.plane("D8"), lipschitz_branch, 256, ("fresh", "trained", "steep")
    ),
    "vector, regular C4, d = 16": Kind(
        lambda: VectorAction.regular("C4", copies=4), lipschitz_branch, 256, ("fresh", "trained", "steep")
    ),
    "vector, regular C4, d = 64": Kind(
        lambda: VectorAction.regular("C4", copies=16), lipschitz_branch, 256, ("fresh", "trained", "steep")
    ),
    "image, D4, 1 x 16 x 16": Kind(lambda: ImageAction("D4", 1, size=16), _network(4), 32, ("fresh", "steep")),
    "image, D4, 3 x 32 x 32": Kind(lambda: ImageAction("D4", 3, size=32), _network(8), 4, ("fresh", "steep")),
}


@dataclass(frozen=True)
class Row:
    """One layer.

    Attributes:
        kind: The name of a Kind.
        state: "fresh", "trained" or "steep".
        bound: The Lipschitz bound of the branch.
    """

    kind: str
    state: str
    bound: float

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.kind}, {self.state}, {self.bound}"

    def labels(self) -> Mapping[str, Any]:
        """All of it."""
        return {"events": self.kind, "state": self.state, "bound": self.bound}


def layer_of(row: Row, *, quick: bool = False) -> GResidual:
    """The layer in float64; the same at every call."""
    kind = KINDS[row.kind]
    torch.manual_seed(1)
    layer = g_residual(kind.action(), branch=partial(kind.branch, bound=row.bound)).double()
    if row.state == "steep":
        with torch.no_grad():
            for name, parameter in layer.named_parameters():
                if name.endswith("theta"):
                    parameter.copy_(2 + 0.3 * torch.randn_like(parameter))
    if row.state == "trained":
        _train(layer, steps=2 if quick else 60)
    return layer.eval()


def _train(layer: GResidual, *, steps: int) -> None:
    optimizer = torch.optim.Adam(layer.parameters(), lr=3e-2)
    centers = 2 * torch.randn(3, *layer.action_in.event_shape, dtype=torch.float64)
    for _ in range(steps):
        x = centers[torch.randint(3, (256,))] + 0.3 * torch.randn(256, *layer.action_in.event_shape).double()
        z, ladj = layer.inv_call_and_ladj(x)
        optimizer.zero_grad()
        (0.5 * z.square().sum(-1) - ladj).mean().backward()
        optimizer.step()


def _solve(layer: GResidual, solver: Solver, y: Tensor) -> tuple[Tensor, SolverReport]:
    with kernels_once(layer.branch):
        return solver(layer.branch, y, layer.action_in.event_dim, lipschitz=layer.branch.bound)


@torch.no_grad()
def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Evaluations of the default solver and of the Banach iteration, the ratio of their times, and the residual."""
    with torch.enable_grad():
        layer = layer_of(row, quick=quick)
    kind = KINDS[row.kind]
    y = torch.randn(2 if quick else kind.batch, *layer.action_in.event_shape, dtype=torch.float64)
    ours, banach = copy.copy(layer.solver), BanachSolver(tolerance=TOLERANCE)
    ours.tolerance = TOLERANCE
    report, plain = (_solve(layer, solver, y)[1] for solver in (ours, banach))
    low, middle, high = interleaved_ratios(
        lambda: _solve(layer, ours, y), lambda: _solve(layer, banach, y), calls=1, rounds=2 if quick else ROUNDS
    )
    return {
        "solver": type(ours).__name__,
        "evaluations": report.evaluations,
        "banach": plain.evaluations,
        "residual": report.residual,
        "time": [round(ratio, 3) for ratio in (low, middle, high)],
    }


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """A line for each row."""
    head = ["events", "layer", "bound", "solver", "evaluations", "Banach's", "time over Banach's"]
    lines = []
    for found in grouped(rows, runs):
        row, (low, middle, high) = found.row, found["time"]
        counts = [f"{found['evaluations']}", f"{found['banach']}"]
        ratio = f"{middle:.2f} ({low:.2f}-{high:.2f})"
        lines.append([row.kind, row.state, f"{row.bound}", found["solver"], *counts, ratio])
    return markdown(head, lines, left=range(4))


ROWS = [Row(name, state, bound) for name, kind in KINDS.items() for state in kind.states for bound in BOUNDS]
BENCHMARK = Benchmark("inverses", __doc__, ROWS, run, table)

if __name__ == "__main__":
    main(BENCHMARK)
