"""Peak memory of a training step against depth: everything stored, layers recomputed, log-dets in constant memory.

    python -m benchmarks.memory [--device cuda]

One line of ``results/memory.jsonl`` for each case; cases that are there already are not repeated. The table in
``results/memory.md`` is made anew after every case.

The peak is that of one forward and backward pass over what was allocated before it (weights, the batch): on the CPU
from the allocator's own events, as torch.profiler records them; on CUDA from ``torch.cuda.max_memory_allocated``.
Seconds are the least of two steps, on the CPU those that this process had of it, which a busy machine inflates less.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.harness import Benchmark, Run, main, markdown
from pyro_gflows import EquivariantFlow, ImageAction, g_coupling_image_flow, g_residual_image_flow
from pyro_gflows.flows.image_scales import Memory

DEPTHS = (8, 16, 24, 32)
CASES: tuple[tuple[str, Memory], ...] = (
    ("residual", "plain"),
    ("residual", "recompute"),
    ("residual", "constant"),
    ("coupling", "plain"),
    ("coupling", "recompute"),
)
SIZE, BATCH, WIDTH = 16, 32, 8
BOUND = 0.9  # 13 terms on average, so that a step takes seconds


def build(family: str, memory: Memory, depth: int, *, size: int = SIZE, width: int = WIDTH) -> EquivariantFlow:
    """A flow of ``depth`` blocks on one scale, of images of 3 channels under C4, with weights from one seed."""
    torch.manual_seed(0)
    action = ImageAction("C4", copies=3, size=size)
    if family == "residual":
        return g_residual_image_flow(action, blocks=depth, width=width, bound=BOUND, memory=memory)
    return g_coupling_image_flow(action, scales=1, blocks=depth, width=width, memory=memory)


def peak_bytes(work: Callable[[], object], device: str = "cpu") -> int:
    """The most memory in tensors while ``work`` runs, over that before it."""
    gc.collect()  # what dies on the way must not count as a gain
    if device != "cpu":
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return torch.cuda.max_memory_allocated(device) - before
    with warnings.catch_warnings():
        # some versions of torch say at the first use that the events of earlier cycles are dropped; here is but one
        warnings.filterwarnings("ignore", message=".*Profiler clears events", category=UserWarning)
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
            work()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes), default=0)


@dataclass(frozen=True)
class Row:
    """One flow of one depth on one device."""

    family: str
    memory: Memory
    depth: int
    device: str = "cpu"

    @property
    def name(self) -> str:
        """For ``--only``."""
        return f"{self.family}-{self.memory}-{self.depth}"

    def labels(self) -> Mapping[str, Any]:
        """All of it, a CUDA device by the name of its model."""
        device = self.device if self.device == "cpu" else torch.cuda.get_device_name(self.device)
        return {"family": self.family, "memory": self.memory, "depth": self.depth, "device": device}


def run(row: Row, *, seed: int, quick: bool) -> dict[str, Any]:
    """Peak and seconds of a training step of one case; weights and batch are always those of one seed."""
    size, batch, width = (8, 4, 2) if quick else (SIZE, BATCH, WIDTH)
    device = row.device
    flow = build(row.family, row.memory, row.depth, size=size, width=width).to(device).train()
    x = torch.randn(batch, *flow.action.event_shape, device=device)
    clock = time.process_time if device == "cpu" else time.perf_counter

    def step() -> float:
        flow.zero_grad(set_to_none=True)
        torch.manual_seed(1)  # the same probes and lengths for every case of a depth
        began = clock()
        (-flow(x).mean()).backward()
        if device != "cpu":
            torch.cuda.synchronize(device)
        return clock() - began

    seconds = min(step() for _ in range(2))
    flow.zero_grad(set_to_none=True)
    return {
        "size": size,
        "batch": batch,
        "width": width,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "seconds": round(seconds, 3),
        "peak_bytes": peak_bytes(step, device),
    }


def table(rows: Sequence[Row], runs: Sequence[Run]) -> str:
    """Peak in MB at each depth, what 8 more blocks add in %, and seconds relative to the plain flow of that depth."""
    by_case = {(run["device"], run["family"], run["memory"], run["depth"]): run for run in runs}
    lines = []
    for device in sorted({run["device"] for run in runs}):
        for family, memory in CASES:
            found = [by_case.get((device, family, memory, depth)) for depth in DEPTHS]
            plain = [by_case.get((device, family, "plain", depth)) for depth in DEPTHS]
            peaks = [f"{run['peak_bytes'] / 1e6:.1f}" if run else "" for run in found]
            growth = [
                f"{100 * (b['peak_bytes'] / a['peak_bytes'] - 1):.0f} %"
                for a, b in itertools.pairwise(found)
                if a and b
            ]
            ratios = [run["seconds"] / base["seconds"] for run, base in zip(found, plain, strict=True) if run and base]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""
            lines.append([device, family, memory, *peaks, ", ".join(growth), spread])
    peaks = [f"{depth} blocks, MB" for depth in DEPTHS]
    head = ["device", "flow", "memory", *peaks, "growth by 8 more blocks", "step, times plain"]
    return markdown(head, lines, left=range(3))


def more_options(parser: argparse.ArgumentParser) -> None:
    """Where the flows are."""
    parser.add_argument("--device", default="cpu", help="cpu (the default), or a CUDA device")


def choose(options: argparse.Namespace) -> list[Row]:
    """All cases on that device, those of one depth, whose seconds are compared, one after the other."""
    return [Row(family, memory, depth, options.device) for depth in DEPTHS for family, memory in CASES]


BENCHMARK = Benchmark(
    "memory",
    __doc__,
    [Row(family, memory, depth) for depth in DEPTHS for family, memory in CASES],
    run,
    table,
    more_options=more_options,
    choose=choose,
)

if __name__ == "__main__":
    main(BENCHMARK)
