"""The validation losses of all processes, added up as sums and counts."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.datasets.processes import Processes
from pyro_gflows.lightning.resuming import RunRandom
from pyro_gflows.numerics.random_state import seed_of_rank

__all__ = ["ValidationPass"]


class ValidationPass:
    """One pass over the validation events of this process, with the same random draws every time.

    Args:
        processes: The processes that share the events.
        device: The device of the weights.
        seed: The seed of the run.
    """

    def __init__(self, processes: Processes, device: torch.device, *, seed: int) -> None:
        self._processes = processes
        self._parts: list[tuple[Tensor | float, int]] = []
        self._random = RunRandom()
        self._random.begin(device)
        torch.manual_seed(seed_of_rank(seed, processes.share.rank))

    def add(self, tally: tuple[Tensor | float, int] | None) -> None:
        """Adds the losses of some events.

        Args:
            tally: Their sum and their number, or None for no events.
        """
        if tally is not None:
            self._parts.append(tally)

    def close(self) -> float | None:
        """Ends the pass, and returns the mean loss of the events of all processes; None if there are no events."""
        self._random.end()
        total, count = float(sum(losses for losses, _ in self._parts)), sum(count for _, count in self._parts)
        return self._processes.mean_of_all(total, count)
