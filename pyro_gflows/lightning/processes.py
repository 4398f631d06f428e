"""What the processes of a Trainer exchange."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from pyro_gflows.datasets.share import Share

__all__ = ["broadcast_tensors", "gathered", "mean_of_all", "share_of"]


def share_of(trainer: Any) -> Share:
    """The part of each batch that this process of a Trainer takes.

    Args:
        trainer: The Trainer.
    """
    return Share(trainer.global_rank, trainer.world_size)


def gathered(value: Any) -> list[Any]:
    """The values of all processes, in the order of their ranks, for every process.

    Args:
        value: Any value that can be pickled.
    """
    if _size() == 1:
        return [value]
    values: list[Any] = [None] * _size()
    torch.distributed.all_gather_object(values, value)
    return values


def mean_of_all(values: Tensor) -> Tensor:
    """The mean of a tensor over the processes, for every process.

    Args:
        values: A tensor of the same shape in all processes.
    """
    if _size() == 1:
        return values
    total = values.clone()
    torch.distributed.all_reduce(total)
    return total / _size()


def broadcast_tensors(module: nn.Module) -> None:
    """Gives all processes the weights and buffers of the first one.

    Args:
        module: The module.
    """
    if _size() > 1:
        for tensor in (*module.parameters(), *module.buffers()):
            torch.distributed.broadcast(tensor.data, src=0)


def _size() -> int:
    distributed = torch.distributed
    return distributed.get_world_size() if distributed.is_available() and distributed.is_initialized() else 1
