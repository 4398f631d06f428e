"""What the processes of a Trainer exchange."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed
from torch import Tensor

from pyro_gflows.datasets.share import Share

__all__ = ["TrainerProcesses"]


class TrainerProcesses:
    """The processes of a Trainer, as one of them sees them.

    Args:
        trainer: The Trainer.
    """

    def __init__(self, trainer: Any) -> None:
        self.share = Share(trainer.global_rank, trainer.world_size)

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in the order of their ranks, for every process.

        Args:
            value: Any value that can be pickled.
        """
        if self.share.size == 1:
            return [value]
        values: list[Any] = [None] * self.share.size
        torch.distributed.all_gather_object(values, value)
        return values

    def mean(self, values: Tensor) -> Tensor:
        """Returns the mean of a tensor over the processes, for every process.

        Args:
            values: A tensor of the same shape in all processes.
        """
        if self.share.size == 1:
            return values
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total / self.share.size

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process the tensors of the first one, in place.

        Args:
            tensors: Weights or buffers.
        """
        if self.share.size > 1:
            for tensor in tensors:
                torch.distributed.broadcast(tensor.data, src=0)
