"""What torch.compile (backend inductor) gains: a recorded flow over the same flow as it is.

    python -m benchmarks.compiled

CPU time of one thread, in one process, in turn; medians of rounds with the quartiles. A training step is the loss, its
gradient and a step of Adam, of which the loss is recorded, with ``fullgraph=True`` and without a warm-up call. Inductor
needs a C++ compiler. A run that is stored is not repeated.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from benchmarks.harness import Benchmark, Column, RowRuns, columns, cpu_seconds, interleaved_ratios, main
from pyro_gflows import (
    EquivariantFlow,
    EquivariantTransform,
    ImageAction,
    InvariantNormal,
    VectorAction,
    g_autoregressive,
    g_coupling,
    g_residual,
)
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import ExactLogDet
from pyro_gflows.transforms import ElementwiseSpline

FIELDS = VectorAction.regular("C4", copies=4)
PLANE = VectorAction.plane("D8")
IMAGES = ImageAction("D4", copies=1, size=8)


def _network_residual() -> EquivariantTransform:
    return g_residual(FIELDS, branch=lambda action: LipschitzNetwork(action, width=16), log_det=ExactLogDet())


LAYERS: Mapping[str, tuple[int, Callable[[], EquivariantTransform]]] = {
    "coupling": (512, lambda: g_coupling(FIELDS)),
    "spline coupling": (512, lambda: g_coupling(FIELDS, transformer=ElementwiseSpline)),
    "autoregressive": (512, lambda: g_autoregressive(FIELDS, width=5)),
    "residual, ridges, d = 2": (512, lambda: g_residual(PLANE)),
    "residual, network, exact": (512, _network_residual),
    "coupling, 1 x 8 x 8": (64, lambda: g_coupling(IMAGES, width=4)),
}


@dataclass(frozen=True)
class Row:
    """One of LAYERS, twice in a flow."""

    name: str

    def labels(self) -> Mapping[str, str]:
        """The name."""
        return {"name": self.name}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Seconds to compile, milliseconds of a plain step, and ratios: lower quartile, median and upper quartile."""
    torch.manual_seed(seed)
    torch._dynamo.reset()
    batch, make = LAYERS[row.name]
    layers = [make() for _ in range(2)]
    flow = EquivariantFlow(InvariantNormal(layers[0].action_in), layers)
    x = torch.randn(batch, *flow.base.event_shape)
    backend = "aot_eager" if quick else "inductor"

    def plain_loss(x: Tensor) -> Tensor:
        return -flow.dist.log_prob(x).mean()

    compiled_loss = torch.compile(plain_loss, fullgraph=True, backend=backend)
    optimizer = torch.optim.Adam(flow.parameters(), lr=1e-6)

    def step(loss: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def one() -> None:
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()

        return one

    def score(loss: Callable[[Tensor], Tensor]) -> Callable[[], None]:
        def one() -> None:
            with torch.no_grad():
                loss(x)

        return one

    began = time.perf_counter()
    step(compiled_loss)(), score(compiled_loss)()
    compile_seconds = time.perf_counter() - began
    calls, rounds = (1, 2) if quick else (10, 21)
    return {
        "torch": torch.__version__,
        "compile_seconds": compile_seconds,
        "step": 1e3 * cpu_seconds(step(plain_loss), calls=calls),
        "step_ratio": interleaved_ratios(step(compiled_loss), step(plain_loss), calls=calls, rounds=rounds),
        "score_ratio": interleaved_ratios(score(compiled_loss), score(plain_loss), calls=calls, rounds=rounds),
    }


def _ratio(figure: str) -> Callable[[RowRuns[Row]], str]:
    return lambda found: "{1:.2f} ({0:.2f}-{2:.2f})".format(*found[figure])


BENCHMARK = Benchmark(
    "compiled",
    __doc__,
    [Row(name) for name in LAYERS],
    run,
    columns(
        Column("2 layers", lambda found: found.row.name, left=True),
        Column("plain step, ms", lambda found: f"{found['step']:.1f}"),
        Column("compiled step / plain", _ratio("step_ratio")),
        Column("compiled score / plain", _ratio("score_ratio")),
        Column("compiling, s", lambda found: f"{found['compile_seconds']:.0f}"),
    ),
)

if __name__ == "__main__":
    main(BENCHMARK)
