"""How long calls take, in turn, on the CPU or on a CUDA device."""

from __future__ import annotations

import gc
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

__all__ = ["Work", "interleaved", "quartiles", "seconds_per_call"]

Work = Callable[[], object]
LEAST_ROUNDS = 3


def seconds_per_call(work: Work, *, calls: int, device: torch.device) -> float:
    """Seconds of one call: CPU time of this process, or the time between two events on a CUDA device."""
    if device.type == "cuda":
        began, ended = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        began.record()
        for _ in range(calls):
            work()
        ended.record()
        ended.synchronize()
        return began.elapsed_time(ended) / 1e3 / calls
    start = time.process_time()
    for _ in range(calls):
        work()
    return (time.process_time() - start) / calls


def interleaved(
    works: Mapping[str, Work],
    *,
    device: torch.device,
    rounds: int,
    slice_seconds: float,
    most_seconds: float = math.inf,
) -> dict[str, list[float]]:
    """Seconds of a call of each work in each round.

    Every round times all works, so that a machine that slows down for a while slows all of them; every second round
    takes them in the opposite order.

    Args:
        works: What is timed.
        device: Where it runs.
        rounds: How often each is timed.
        slice_seconds: A work is called so often in a round that it takes about that long, and at least once.
        most_seconds: Fewer rounds are taken, but at least three, if all rounds would take longer than that.
    """
    calls, expected = {}, 0.0
    for name, work in works.items():
        work(), work()  # constants are made at the first call
        once = min(seconds_per_call(work, calls=1, device=device) for _ in range(2))
        calls[name] = max(1, round(slice_seconds / max(once, 1e-7)))
        expected += calls[name] * once
    if rounds * expected > most_seconds:
        rounds = min(rounds, max(LEAST_ROUNDS, int(most_seconds / expected)))
    found: dict[str, list[float]] = {name: [] for name in works}
    gc.collect()
    for number in range(rounds):
        for name in list(works) if number % 2 == 0 else reversed(list(works)):
            found[name].append(seconds_per_call(works[name], calls=calls[name], device=device))
    return found


def quartiles(values: Sequence[float]) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high
