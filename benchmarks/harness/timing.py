"""Clocks: what a run took, what a call takes, and how two calls compare on a machine that does other things too."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable
from types import TracebackType

import torch

__all__ = ["Stopwatch", "cpu_seconds", "interleaved_ratios", "surroundings"]


class Stopwatch:
    """Wall seconds, and the CPU seconds of this process, of what is done inside a ``with``.

    CPU time is what a busy machine inflates least.

    Example:
        >>> with Stopwatch() as watch:
        ...     _ = sum(range(1000))
        >>> sorted(watch.figures())
        ['cpu_seconds', 'seconds']
    """

    seconds: float
    cpu_seconds: float

    def __enter__(self) -> Stopwatch:
        self.seconds, self.cpu_seconds = -time.perf_counter(), -time.process_time()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        self.seconds += time.perf_counter()
        self.cpu_seconds += time.process_time()

    def figures(self) -> dict[str, float]:
        """Both, rounded to tenths, by the names that all files use."""
        return {"seconds": round(self.seconds, 1), "cpu_seconds": round(self.cpu_seconds, 1)}


def surroundings() -> dict[str, float]:
    """What the times of a run depend on: the load of the machine, where it is known, and the threads of torch."""
    load = {"load": round(os.getloadavg()[0], 1)} if hasattr(os, "getloadavg") else {}
    return {**load, "threads": torch.get_num_threads()}


def cpu_seconds(work: Callable[[], object], *, calls: int, rounds: int = 1) -> float:
    """CPU seconds of one call: the mean over ``calls``, the least of the rounds."""
    found = []
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(calls):
            work()
        found.append((time.process_time() - began) / calls)
    return min(found)


def interleaved_ratios(
    work: Callable[[], object], other: Callable[[], object], *, calls: int, rounds: int
) -> tuple[float, float, float]:
    """CPU time of ``work`` over that of ``other``: lower quartile, median and upper quartile over rounds.

    Both are timed within each round, so that a machine that slows down for a while slows both.
    """
    ratios = []
    for number in range(rounds + 1):
        ratio = cpu_seconds(work, calls=calls) / cpu_seconds(other, calls=calls)
        if number:  # the first round warms up
            ratios.append(ratio)
    low, middle, high = statistics.quantiles(ratios, n=4)
    return low, middle, high
