"""Scaling laws: CPU time and memory of set-up, scoring, sampling and training against size, depth and group order.

    python -m benchmarks.scaling     # and the figures results/scaling_size.png and results/scaling_group.png

Every case is one line of ``results/scaling.jsonl``; cases that are there already are not repeated. The table in
``results/scaling.md`` holds, for each part, the exponent of a power law that is fitted to all sizes by least squares of
logarithms, the exponent between the two largest sizes, and the time or memory at the largest.

Times are CPU seconds of one thread, the least of a few calls. Set-up starts from nothing that earlier flows have
computed. Memory is the peak over what was allocated before, from the allocator's own events; that of a step is the peak
of a forward and backward pass.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.harness import Benchmark, Run, main, markdown
from benchmarks.memory import peak_bytes
from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    ImageAction,
    InvariantNormal,
    RowsAction,
    VectorAction,
    g_autoregressive,
    g_coupling,
    g_coupling_image_flow,
    g_residual,
    g_residual_image_flow,
)
from pyro_gflows.actions import LinearAction
from pyro_gflows.groups.decomposition import decompose
from pyro_gflows.plots.figures import new_figure, save_figure
from pyro_gflows.training import Adam

WIDTH, BATCH, DEPTH = 8, 256, 2
ENOUGH, MOST = 0.1, 5  # seconds and calls after which a part is measured

LAYERS: Mapping[str, Callable[[LinearAction], Any]] = {
    "coupling": functools.partial(g_coupling, width=WIDTH),
    "autoregressive": functools.partial(g_autoregressive, width=WIDTH),
    "residual": g_residual,
}
IMAGE_FLOWS: Mapping[str, Callable[..., EquivariantFlow]] = {
    "coupling": functools.partial(g_coupling_image_flow, scales=1),
    "residual": functools.partial(g_residual_image_flow, scales=1, bound=0.9),
}
PARTS = {
    "setup": "set-up",
    "score": "scoring",
    "sample": "sampling",
    "step": "training step",
    "setup_bytes": "memory of set-up",
    "step_bytes": "memory of a step",
}


@dataclass(frozen=True)
class Axis:
    """What is varied.

    Attributes:
        word: What the sizes count, for the axis of a figure.
        values: The values of the parameter.
        action: The action for a value.
        size: What the value amounts to: the order of the group, the number of components, and so on.
        batch: Events in a batch, where they are not what is varied.
    """

    word: str
    values: Sequence[int]
    action: Callable[[int], LinearAction]
    size: Callable[[int], int] = int
    batch: int = BATCH

    @property
    def flows(self) -> Sequence[str]:
        """The families that exist for these actions."""
        return list(IMAGE_FLOWS if isinstance(self.action(self.values[0]), ImageAction) else LAYERS)


def _vectors(copies: int) -> VectorAction:
    return VectorAction.regular("C4", copies=copies)


AXES: Mapping[str, Axis] = {
    "batch": Axis("events in a batch", (64, 256, 1024, 4096), lambda _: _vectors(4)),
    "event": Axis("components of an event", (2, 4, 8, 16, 32), _vectors, lambda n: 4 * n),
    "depth": Axis("layers", (1, 2, 4, 8, 16), lambda _: _vectors(4)),
    "rows": Axis("rows of 2 features, all permutations", (4, 8, 16, 32, 64), lambda n: RowsAction(n, 2), batch=64),
    "cyclic": Axis("order of C_n", (4, 8, 16, 32, 64), lambda n: VectorAction.regular(f"C{n}", copies=2)),
    "dihedral": Axis(
        "order of D_n", (4, 8, 16, 32), lambda n: VectorAction.regular(f"D{n}", copies=2), lambda n: 2 * n
    ),
    "symmetric": Axis("order of S_n", (3, 4, 5, 6), lambda n: VectorAction.rows(f"S{n}", features=2), math.factorial),
    "translations": Axis(
        "translations of n x n pixels",
        (8, 16, 32, 64),
        lambda n: ImageAction.translations(2, size=n),
        lambda n: n * n,
        8,
    ),
}
FIGURES = {"size": ("batch", "event", "depth", "rows"), "group": ("cyclic", "dihedral", "symmetric", "translations")}


@dataclass(frozen=True)
class Row:
    """One flow at one value of what is varied."""

    axis: str
    flow: str
    value: int

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.axis}-{self.flow}-{self.value}"

    def labels(self) -> Mapping[str, Any]:
        """All of it, and what is not varied."""
        recipe = f"width {WIDTH}, depth {DEPTH}, batch {AXES[self.axis].batch}"
        return {"axis": self.axis, "flow": self.flow, "value": self.value, "recipe": recipe}

    def build(self) -> EquivariantFlow:
        """The flow, from nothing that earlier flows have computed."""
        decompose.cache_clear()
        action = AXES[self.axis].action(self.value)
        depth = self.value if self.axis == "depth" else DEPTH
        torch.manual_seed(0)
        if isinstance(action, ImageAction):
            return IMAGE_FLOWS[self.flow](action, blocks=depth, width=WIDTH)
        layers = [layer for _ in range(depth) for layer in (GActNorm(action), LAYERS[self.flow](action))]
        return EquivariantFlow(InvariantNormal(action), layers)


def least_seconds(work: Callable[[], object], *, most: int) -> float:
    """CPU seconds of a call: the least of a few."""
    found: list[float] = []
    while len(found) < most and sum(found) < ENOUGH:
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The seconds of every part, and the peak of a step."""
    axis, most = AXES[row.axis], 1 if quick else MOST
    batch = row.value if row.axis == "batch" else axis.batch
    setup = least_seconds(row.build, most=1 if quick else 2)
    flow = row.build().train()
    x = torch.randn(batch, *flow.action.event_shape)
    optimizer = Adam().make(flow.parameters())

    def backward() -> None:
        flow.zero_grad(set_to_none=True)
        torch.manual_seed(1)  # the same probes in every call
        (-flow(x).mean()).backward()

    def step() -> None:
        backward()
        optimizer.step()

    def score() -> None:
        with torch.no_grad():
            flow.dist.log_prob(x)

    def sample() -> None:
        flow.dist.sample((batch,))

    step()  # constants are made at the first call
    figures = {"size": axis.size(row.value), "batch": batch, "components": flow.action.numel, "setup": setup}
    figures["setup_bytes"] = peak_bytes(row.build)
    figures |= {"step": least_seconds(step, most=most), "step_bytes": peak_bytes(backward)}
    flow.eval()
    for part, work in {"score": score, "sample": sample}.items():
        if not quick:
            work()
        figures[part] = least_seconds(work, most=most)
    return figures


def exponent(sizes: Sequence[float], values: Sequence[float]) -> float:
    """The exponent of the power law that fits best, by least squares of logarithms."""
    return float(np.polyfit(np.log(sizes), np.log(values), 1)[0])


def points(runs: Sequence[Run], axis: str, flow: str) -> list[Run]:
    """The finished runs of one line of a figure, by their sizes."""
    found = [run for run in runs if (run["axis"], run["flow"]) == (axis, flow)]
    return sorted(found, key=lambda run: int(run["size"]))


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """The exponent of each part, and its time in ms and memory in MB at the largest size."""
    lines = []
    for name, axis in AXES.items():
        for flow in axis.flows:
            found = points(runs, name, flow)
            if len(found) < 2:
                continue
            sizes = [run["size"] for run in found]
            laws = [_law(sizes, [run[part] for run in found], part) for part in PARTS]
            lines.append([axis.word, f"{sizes[0]} to {sizes[-1]}", flow, *laws])
    return markdown(["varied", "from", "flow", *PARTS.values()], lines, left=range(3))


def _law(sizes: Sequence[float], values: Sequence[float], part: str) -> str:
    whole, last = exponent(sizes, values), exponent(sizes[-2:], values[-2:])
    largest = f"{values[-1] / 1e6:.3g} MB" if part.endswith("bytes") else f"{1e3 * values[-1]:.3g} ms"
    return f"{whole:.2f}, {last:.2f} ({largest})"


def draw(runs: Sequence[Run], folder: Path) -> None:
    """A panel for each axis and part, with logarithmic scales, and the exponents in its legend."""
    for name, axes in FIGURES.items():
        figure, panels = new_figure(len(PARTS), rows=len(axes), size=3.0)
        for line, axis in enumerate(axes):
            for panel, (part, word) in zip(panels[line], PARTS.items(), strict=True):
                _draw_panel(panel, runs, axis, part)
                panel.set_title(word if line == 0 else "", fontsize=10)
                panel.set_ylabel("MB" if part.endswith("bytes") else "CPU ms", fontsize=8)
        save_figure(figure, folder / f"scaling_{name}.png")


def _draw_panel(panel: Any, runs: Sequence[Run], axis: str, part: str) -> None:
    scale = 1e-6 if part.endswith("bytes") else 1e3
    for index, flow in enumerate(LAYERS):
        found = points(runs, axis, flow)
        if len(found) < 2:
            continue
        sizes, values = np.array([run["size"] for run in found]), scale * np.array([run[part] for run in found])
        power = exponent(sizes, values)
        (mark,) = panel.loglog(sizes, values, "o", markersize=4, color=f"C{index}")
        center = np.exp(np.log(sizes).mean())
        law = np.exp(np.log(values).mean()) * (sizes / center) ** power
        panel.loglog(sizes, law, color=mark.get_color(), linewidth=1, label=f"{flow}: {power:.2f}")
    panel.set_xlabel(AXES[axis].word, fontsize=8)
    panel.tick_params(labelsize=7)
    if panel.lines:
        panel.legend(fontsize=7)
        _plain_ticks(panel, [int(run["size"]) for run in points(runs, axis, "coupling")])


def _plain_ticks(panel: Any, sizes: Sequence[int]) -> None:
    """Ticks at the sizes, and times at 1, 2 and 5 times powers of ten, as plain numbers."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    panel.set_xticks(sizes, [str(size) for size in sizes])
    panel.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    panel.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    for axis in (panel.xaxis, panel.yaxis):
        axis.set_minor_locator(NullLocator())


BENCHMARK = Benchmark(
    "scaling",
    __doc__,
    [Row(name, flow, value) for name, axis in AXES.items() for flow in axis.flows for value in axis.values],
    run,
    table,
    after=draw,
)

if __name__ == "__main__":
    main(BENCHMARK)
