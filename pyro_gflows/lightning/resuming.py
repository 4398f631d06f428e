"""What a FlowModule adds to the checkpoints of the Trainer, and how a run goes on from there."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_gflows.datasets.processes import Processes
from pyro_gflows.numerics.random_state import random_tensors, restore_random, seed_of_rank
from pyro_gflows.training.checkpoint import Progress

__all__ = ["RunRandom", "resume_run", "stored_run"]


class RunRandom:
    """The state of torch's generators inside a run, apart from their state in the program around it.

    It is no context manager, since a run that fails would end it when it is collected, at any later time.
    """

    def __init__(self) -> None:
        self._device = torch.device("cpu")
        self._outside: dict[str, Tensor] = {}
        self._last: dict[str, Tensor] = {}

    def begin(self, device: torch.device) -> None:
        """Enters the run.

        Args:
            device: The device whose generator it uses beside that of the CPU.
        """
        self._device, self._last = device, {}
        self._outside = random_tensors(device)

    def end(self) -> None:
        """Leaves the run, if it has not been left already."""
        if self._outside:
            self._last = random_tensors(self._device)
            restore_random(self._outside, self._device)
            self._outside = {}

    def states(self) -> dict[str, Tensor]:
        """The states inside the run, also after its end."""
        return self._last or random_tensors(self._device)


def stored_run(
    processes: Processes, random: RunRandom, *, progress: Progress, batches: dict[str, Tensor]
) -> dict[str, Any]:
    """The random states of all processes, the positions in their data, and the losses, for a checkpoint.

    Args:
        processes: The processes of the run.
        random: The random state of this process.
        progress: The losses so far.
        batches: The position of this process in data of the objective's own.
    """
    own = {"random": random.states(), "batches": batches}
    return {"processes": processes.gather(own), "losses": (progress.first_loss, progress.smooth_loss)}


def resume_run(
    stored: dict[str, Any], processes: Processes, device: torch.device, *, progress: Progress, seed: int
) -> dict[str, Tensor]:
    """Restores the random state and the losses of a run, which may have had another number of processes.

    Args:
        stored: What :func:`stored_run` returned; empty for a checkpoint without it.
        processes: The processes of this run.
        device: The device of this process.
        progress: The losses, which are set.
        seed: The seed of the run.

    Returns:
        The position in data of the objective's own.
    """
    if not stored:
        return {}
    progress.first_loss, progress.smooth_loss = stored["losses"]
    share, before = processes.share, stored["processes"]
    if len(before) != share.size:
        # the position in the data is common to all processes; their random draws have to begin anew
        torch.manual_seed(seed_of_rank(seed, share.rank, share.size, progress.step))
        return dict(before[0]["batches"])
    restore_random(before[share.rank]["random"], device)
    return dict(before[share.rank]["batches"])
