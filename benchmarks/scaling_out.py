"""A plan past one machine: what a step costs against what it sends, measured here and extrapolated to many GPUs.

    python -m benchmarks.devices         # the steps of two processes, with which the plan is compared
    python -m benchmarks.scaling_out     # results/scaling_out.md and scaling_out.png, from scaling_out.jsonl; 3 minutes

Counted: parameters, operations, arithmetic and bytes of a training step (``step_costs.py``). Measured: CPU seconds of a
step with 4 events and with many, which give the time that does not depend on the batch and the time of an event; and
all-reduces of 1 KB to 64 MB between two processes (gloo), which give a latency and a bandwidth. From these follows the
time of a step on two processes, beside the measured one.

Extrapolated: the time of a step on n GPUs, by the model in ``clusters.py``, no figure of which was measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed

from benchmarks.clusters import GPU, GRAPHS
from benchmarks.device_flows import FAMILIES
from benchmarks.devices import TWO
from benchmarks.harness import Benchmark, Run, Store, main, markdown
from benchmarks.harness.command import RESULTS
from benchmarks.step_costs import costs_of
from pyro_gflows.plots.figures import new_figure, save_figure
from pyro_gflows.training import Engine, FitSettings
from pyro_gflows.training.engines.devices import launch
from pyro_gflows.training.trainer import Trainer

COUNTS = (1, 8, 64, 512)
FILLED = 64  # times the batch of the table of costs that is shared
SIZES = tuple(1024 * 4**power for power in range(9))  # bytes
ALL_REDUCE = "all-reduce"


@dataclass(frozen=True)
class Row:
    """One flow, or the all-reduces."""

    family: str

    @property
    def name(self) -> str:
        """For ``--only``."""
        return self.family

    def labels(self) -> Mapping[str, Any]:
        """The flow in words."""
        return {"family": self.family, "about": FAMILIES[self.family].about if self.family in FAMILIES else ""}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """The costs of a step, or the times of all-reduces."""
    return all_reduces(quick=quick) if row.family == ALL_REDUCE else step_costs(row.family, quick=quick)


def step_costs(name: str, *, quick: bool) -> dict[str, Any]:
    """Counts at the larger batch, and the time without events and that of an event, from almost none and many."""
    family, seconds = FAMILIES[name], {}
    few, large = 4, family.batches[-1]
    for batch in (few, large):
        objective = family.objective(batch, steps=100_000)
        trainer = Trainer(objective, settings=FitSettings(steps=100_000, batch_size=batch, check_symmetry=False))
        trainer.start()
        trainer.step()  # constants are made at the first call
        seconds[batch] = _least_cpu(trainer.step, budget=0.1 if quick else 4.0)
    costs = costs_of(trainer.step)
    weights = list(objective.parameters())
    event = (seconds[large] - seconds[few]) / (large - few)
    return {
        "parameters": sum(weight.numel() for weight in weights),
        "tensors": len(weights),
        "batch": large,
        "launches": costs.launches,
        "products": costs.products,
        "others": costs.others,
        "bytes": costs.bytes,
        "step": seconds[large],
        "event": event,
        "fixed": seconds[few] - few * event,
    }


def _least_cpu(work: Any, *, budget: float) -> float:
    found: list[float] = []
    while len(found) < 3 or (sum(found) < budget and len(found) < 60):
        began = time.process_time()
        work()
        found.append(time.process_time() - began)
    return min(found)


def all_reduces(*, quick: bool) -> dict[str, Any]:
    """Seconds of an all-reduce between two processes for each size, and the latency and bandwidth that fit best."""
    sizes = SIZES[:3] if quick else SIZES
    times = launch(TWO, _Sending(sizes, 3 if quick else 15), module=torch.nn.Linear(1, 1))
    size, seconds = np.array(sizes, dtype=float), np.array([statistics.median(found) for found in times])
    # least squares of relative errors, so that small sizes decide about the latency
    latency, slope = np.linalg.lstsq(np.stack([1 / seconds, size / seconds], 1), np.ones(len(size)), rcond=None)[0]
    spread = [statistics.quantiles(found, n=4) for found in times]
    return {"sizes": sizes, "quartiles": spread, "latency": float(latency), "bandwidth": float(1 / slope)}


@dataclass(frozen=True)
class _Sending:
    sizes: Sequence[int]
    rounds: int

    def __call__(self, engine: Engine) -> list[list[float]]:
        torch.set_num_threads(1)
        found = []
        for size in self.sizes:
            tensor, times = torch.zeros(size // 4), []
            for _ in range(self.rounds + 1):
                engine.gather(None)
                began = time.perf_counter()
                torch.distributed.all_reduce(tensor)
                times.append(time.perf_counter() - began)
            found.append(times[1:])
        return found


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """Costs, two processes, and many GPUs: a table each."""
    flows = [found for row in rows for found in runs if found["family"] == row.family and row.family in FAMILIES]
    parts = ["## Counted and measured: the cost of a step", _costs(flows)]
    sent = next((found for found in runs if found["family"] == ALL_REDUCE), None)
    if sent is not None:
        parts += ["## Measured: all-reduce between two processes (gloo)", _sending(sent)]
        parts += ["## Predicted and measured: two processes", _two(flows, sent)]
    parts += ["## Extrapolated: many GPUs", _many(flows)]
    return "\n\n".join(parts)


def _costs(flows: Sequence[Run]) -> str:
    head = ["flow", "batch", "parameters (tensors)", "gradient, KB", "operations", "MFLOP: products, others"]
    head += ["MB read and written", "FLOP a byte", "CPU ms: step", "without events", "us an operation, without events"]
    head += ["us an event", "FLOP a byte sent"]
    lines = []
    for run in flows:
        work = run["products"] + run["others"]
        lines.append([
            f"{run['family']} ({run['about']})",
            f"{run['batch']}",
            f"{run['parameters']:,} ({run['tensors']})",
            f"{4 * run['parameters'] / 1e3:.1f}",
            f"{run['launches']}",
            f"{run['products'] / 1e6:.0f}, {run['others'] / 1e6:.0f}",
            f"{run['bytes'] / 1e6:.0f}",
            f"{work / run['bytes']:.2f}",
            f"{1e3 * run['step']:.1f}",
            f"{1e3 * run['fixed']:.1f}",
            f"{1e6 * run['fixed'] / run['launches']:.1f}",
            f"{1e6 * run['event']:.1f}",
            f"{work / (4 * run['parameters']):,.0f}",
        ])  # fmt: skip
    return markdown(head, lines)


def _sending(sent: Run) -> str:
    lines = []
    for size, (low, middle, high) in zip(sent["sizes"], sent["quartiles"], strict=True):
        fitted = sent["latency"] + size / sent["bandwidth"]
        lines.append(
            [f"{size / 1024:,.0f}", f"{1e3 * middle:.2f} ({1e3 * low:.2f} to {1e3 * high:.2f})", f"{1e3 * fitted:.2f}"]
        )
    text = markdown(["KB", "ms, median (quartiles)", "fitted"], lines)
    fit = f"{1e3 * sent['latency']:.2f} ms and {sent['bandwidth'] / 1e9:.2f} GB/s"
    return f"{text}\n\nFitted: {fit}; load {sent['load']:.1f}."


def _two(flows: Sequence[Run], sent: Run) -> str:
    """Predicted from one process and the all-reduces, beside the steps of devices.jsonl."""
    path = RESULTS / "devices.jsonl"
    measured = {(run["family"], run["batch"]): run for run in Store(path if path.exists() else None).runs}
    lines = []
    for run in flows:
        for batch in FAMILIES[run["family"]].batches:
            one = run["fixed"] + batch * run["event"]
            sending = 4 * run["parameters"] / sent["bandwidth"] + 2 * sent["latency"]
            two = run["fixed"] + batch / 2 * run["event"] + sending
            found = measured.get((run["family"], batch))
            real = ["-", "-", "-"]
            if found is not None:
                real = [f"{found['two_cpu_ms']:.1f}", f"{found['cpu'][1]:.2f}", f"{found['best_wall']:.2f}"]
            cells = [f"{1e3 * one:.1f}", f"{1e3 * two:.1f}", real[0], f"{1e3 * sending:.2f}", f"{one / two:.2f}"]
            lines.append([run["family"], f"{batch}", *cells, *real[1:]])
    head = ["flow", "batch", "ms a step of one", "of two, predicted", "of two, CPU measured", "of this, all-reduce"]
    head += ["one over two, predicted", "measured, CPU (median)", "measured, wall (best round)"]
    return markdown(head, lines)


def _many(flows: Sequence[Run]) -> str:
    """Efficiency with as many events on each GPU as in the table of costs, and gain with one global batch."""
    lines, gains = [], []
    for run in flows:
        batch = run["batch"]
        one = GPU.step(run, batch, 1)
        steps = [GPU.step(run, batch, count) for count in COUNTS[1:]]
        event = GPU.compute(run, 1e9) / 1e9
        cells = [f"{1e3 * step:.2f}, {one / step:.0%}" for step in steps]
        cells = [f"{batch}", f"{1e3 * one:.2f}", *cells, f"{run['launches'] * GPU.host / event:,.0f}"]
        lines.append([run["family"], *cells, f"{4e-9 * FAMILIES[run['family']].components / event:.2f}"])
        total = FILLED * batch
        cells = [f"{total:,}"]
        for cluster in (GPU, GRAPHS):
            first = cluster.step(run, total, 1)
            cells += [f"{first / cluster.step(run, total / count, count):.1f}" for count in COUNTS[1:]]
        gains.append([run["family"], *cells])
    head = ["flow", "events on each GPU", "one GPU: ms a step", *(f"{count}: ms, efficiency" for count in COUNTS[1:])]
    titles = [f"{count} GPUs{kind}" for kind in ("", ", CUDA graphs") for count in COUNTS[1:]]
    return "\n\n".join([
        "The events of each GPU are kept, so that more GPUs have a larger batch:",
        markdown([*head, "events that fill a GPU", "GB/s of data that a full GPU reads"], lines),
        "One batch is shared; how many times as fast as one GPU a step is:",
        markdown(["flow", "events in the batch", *titles], gains),
    ])  # fmt: skip


def draw(runs: Sequence[Run], folder: Path) -> None:
    """Against the number of GPUs: efficiency with the events of each GPU kept, and gain with one batch shared."""
    flows = [run for run in runs if run["family"] in FAMILIES]
    if not flows:
        return
    counts = [2**power for power in range(10)]
    figure, panels = new_figure(3, size=3.6)
    first, *others = np.ravel(panels)
    for index, run in enumerate(flows):
        style = {"markersize": 3, "color": f"C{index}", "label": run["family"]}
        one = GPU.step(run, run["batch"], 1)
        first.plot(counts, [one / GPU.step(run, run["batch"], n) for n in counts], "o-", **style)
        total = FILLED * run["batch"]
        for panel, cluster in zip(others, (GPU, GRAPHS), strict=True):
            step = cluster.step(run, total, 1)
            panel.plot(counts, [step / cluster.step(run, total / n, n) for n in counts], "o-", **style)
    first.set_title("efficiency, each GPU keeps its events", fontsize=9)
    first.set_ylim(0.8, 1.01)
    for panel, word in zip(others, ("", ", CUDA graphs"), strict=True):
        panel.set_title(f"times as fast, one batch shared{word}", fontsize=9)
        panel.plot(counts, counts, "k:", linewidth=1)
        panel.set_yscale("log", base=2)
        panel.set_yticks(counts[::3], [str(count) for count in counts[::3]])
    for panel in (first, *others):
        panel.set_xscale("log", base=2)
        panel.set_xlabel("GPUs (extrapolated)", fontsize=8)
        panel.set_xticks(counts[::3], [str(count) for count in counts[::3]])
        panel.tick_params(labelsize=7)
    first.legend(fontsize=6, loc="lower left")
    save_figure(figure, folder / "scaling_out.png")


ROWS = [*(Row(name) for name in FAMILIES), Row(ALL_REDUCE)]
BENCHMARK = Benchmark(
    "scaling_out",
    __doc__,
    ROWS,
    run,
    table,
    after=draw,
)

if __name__ == "__main__":
    main(BENCHMARK)
