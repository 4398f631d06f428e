"""The time of a training step on many GPUs, extrapolated from its counts by a model with a few rough figures."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["GPU", "GRAPHS", "Cluster"]


@dataclass(frozen=True)
class Cluster:
    """What is assumed of many GPUs; every figure is a rough one of a GPU of 2023, and none was measured here.

    Attributes:
        operations: Floating-point operations a second that operations of this size reach: a tenth of 67e12 (float32).
        memory: Bytes a second from memory: six tenths of 3.35e12.
        host: Seconds for an operation before the GPU may begin with it: Python and launching, about what is measured
            here on a CPU without events; 1e-6 where a CUDA graph launches all of a step at once.
        near: Bytes a second to the GPUs of the same machine, of which there are eight.
        far: Bytes a second to other machines, for each GPU.
        near_latency: Seconds of an all-reduce of nothing within a machine.
        far_latency: Seconds that every doubling of the number of machines adds to it.
    """

    operations: float = 6.7e12
    memory: float = 2e12
    host: float = 1e-5
    near: float = 450e9
    far: float = 50e9
    near_latency: float = 3e-5
    far_latency: float = 2e-5

    def all_reduce(self, size: float, count: int) -> float:
        """Seconds of an all-reduce of so many bytes over so many GPUs, in a ring over the slowest of the links."""
        if count == 1:
            return 0.0
        latency = self.near_latency + self.far_latency * math.log2(max(1, count / 8))
        return latency + 2 * (count - 1) / count * size / (self.near if count <= 8 else self.far)

    def compute(self, run: Mapping[str, Any], batch: float) -> float:
        """Seconds of the rest of a step with so many events on each GPU: of launching, arithmetic or memory."""
        share = batch / run["batch"]
        arithmetic = share * (run["products"] + run["others"]) / self.operations
        return max(run["launches"] * self.host, arithmetic, share * run["bytes"] / self.memory)

    def step(self, run: Mapping[str, Any], batch: float, count: int) -> float:
        """Seconds of a step: gradients are sent after the backward pass at worst, and the loss after that."""
        return self.compute(run, batch) + self.all_reduce(4 * run["parameters"], count) + self.all_reduce(8, count)


GPU, GRAPHS = Cluster(), Cluster(host=1e-6)
