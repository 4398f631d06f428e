"""Peak memory of a training step against depth: everything stored, layers recomputed, log-dets in constant memory.

    python -m benchmarks.memory [--device cuda] [--quick]

One line of ``results/memory.jsonl`` for each case; cases that are there already are not repeated. The table in
``results/memory.md`` is made anew after every case. With ``--quick`` the events are small, and nothing is kept.

The peak is that of one forward and backward pass over what was allocated before it (weights, the batch): on the CPU
from the allocator's own events, as torch.profiler records them; on CUDA from ``torch.cuda.max_memory_allocated``.
Seconds are the least of two steps, on the CPU those that this process had of it, which a busy machine inflates less.
"""

from __future__ import annotations

import argparse
import gc
import itertools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.densities import RESULTS, read
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
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None and profiler.profiler.kineto_results is not None
    events = [event for event in profiler.profiler.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return max(itertools.accumulate(changes), default=0)


def measure(
    family: str, memory: Memory, depth: int, *, device: str, size: int, batch: int, width: int
) -> dict[str, Any]:
    """Peak and seconds of a training step of one case."""
    flow = build(family, memory, depth, size=size, width=width).to(device).train()
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
        "family": family,
        "memory": memory,
        "depth": depth,
        "device": device if device == "cpu" else torch.cuda.get_device_name(device),
        "size": size,
        "batch": batch,
        "width": width,
        "parameters": sum(parameter.numel() for parameter in flow.parameters()),
        "seconds": round(seconds, 3),
        "peak_bytes": peak_bytes(step, device),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Peak in MB at each depth, what 8 more blocks add in %, and seconds relative to the plain flow of that depth."""
    by_case = {(row["device"], row["family"], row["memory"], row["depth"]): row for row in rows}
    lines = [
        f"| device | flow | memory | {' | '.join(f'{depth} blocks, MB' for depth in DEPTHS)} "
        "| growth by 8 more blocks | step, times plain |",
        f"| --- | --- | --- |{' ---: |' * (len(DEPTHS) + 2)}",
    ]
    for device in sorted({row["device"] for row in rows}):
        for family, memory in CASES:
            found = [by_case.get((device, family, memory, depth)) for depth in DEPTHS]
            plain = [by_case.get((device, family, "plain", depth)) for depth in DEPTHS]
            peaks = [f"{row['peak_bytes'] / 1e6:.1f}" if row else "" for row in found]
            growth = [
                f"{100 * (b['peak_bytes'] / a['peak_bytes'] - 1):.0f} %"
                for a, b in itertools.pairwise(found)
                if a and b
            ]
            ratios = [row["seconds"] / base["seconds"] for row, base in zip(found, plain, strict=True) if row and base]
            spread = f"{min(ratios):.2f} to {max(ratios):.2f}" if ratios else ""
            lines.append(f"| {device} | {family} | {memory} | {' | '.join(peaks)} | {', '.join(growth)} | {spread} |")
    return "\n".join(lines) + "\n"


def _cases() -> Iterator[tuple[int, str, Memory]]:
    for depth in DEPTHS:  # seconds of a depth side by side
        for family, memory in CASES:
            yield depth, family, memory


def main(arguments: Sequence[str] | None = None, *, results: Path = RESULTS) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--quick", action="store_true", help="small events, nothing kept")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    device = options.device
    name = device if device == "cpu" else torch.cuda.get_device_name(device)
    size, batch, width = (8, 4, 2) if options.quick else (SIZE, BATCH, WIDTH)
    rows = [] if options.quick else read(results / "memory.jsonl")
    done = {(row["device"], row["depth"], row["family"], row["memory"]) for row in rows}
    for depth, family, memory in _cases():
        if (name, depth, family, memory) in done:
            continue
        row = measure(family, memory, depth, device=device, size=size, batch=batch, width=width)
        rows.append(row)
        print(json.dumps(row), flush=True)
        if not options.quick:
            with (results / "memory.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            (results / "memory.md").write_text(table(rows), encoding="utf-8")
    print(table(rows))


if __name__ == "__main__":
    main()
