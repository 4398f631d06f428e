"""What the training loop needs from the devices that it runs on, and the plain implementation for one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from pyro_gflows.datasets.processes import on_all, on_first
from pyro_gflows.datasets.share import Share
from pyro_gflows.training.objectives.base import Objective

__all__ = ["Engine", "OneDevice", "on_all", "on_first"]


class Engine(Protocol):
    """The devices of a run, as one of its processes sees them.

    There are two: :class:`OneDevice` and :class:`~pyro_gflows.training.engines.fabric.FabricEngine`, and one loop over
    both.

    Attributes:
        share: The number of this process, and of all processes.
        device: The device of this process; None leaves the weights where they are.
    """

    share: Share
    device: torch.device | None

    def set_up(self, objective: Objective, optimizer: torch.optim.Optimizer) -> Callable[[Any, int], Tensor]:
        """Returns the loss as a function of batch and step, by which all processes get the same gradients.

        Args:
            objective: The objective, whose weights become those of the first process.
            optimizer: The optimizer of its weights.
        """
        ...

    def backward(self, loss: Tensor) -> None:
        """Computes the gradients of a loss, averaged over the processes."""
        ...

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """Scales the gradients to a norm of at most ``max_norm``, and returns the norm that they had."""
        ...

    def total(self, values: Tensor) -> Tensor:
        """Returns the sum of a tensor over the processes, for every process."""
        ...

    def share_buffers(self, module: nn.Module) -> None:
        """Gives every process the buffers of the first one, before they are used or stored."""
        ...

    def gather(self, value: Any) -> list[Any]:
        """Returns the values of all processes, in the order of their ranks, for every process."""
        ...


class OneDevice:
    """The device on which the weights are, in one process.

    Example:
        >>> engine = OneDevice()
        >>> engine.share, engine.gather("a")
        (Share(rank=0, size=1), ['a'])
    """

    def __init__(self) -> None:
        self.share = Share()
        self.device: torch.device | None = None

    def set_up(self, objective: Objective, optimizer: torch.optim.Optimizer) -> Callable[[Any, int], Tensor]:
        """Returns the objective itself.

        Args:
            objective: The objective.
            optimizer: Not used.
        """
        return objective

    def backward(self, loss: Tensor) -> None:
        """Computes the gradients of a loss.

        Args:
            loss: The loss, a scalar.
        """
        loss.backward()

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """Scales the gradients to a norm of at most ``max_norm``, and returns the norm that they had.

        Args:
            parameters: The weights with the gradients.
            max_norm: The largest norm over all of them together.
        """
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)

    def total(self, values: Tensor) -> Tensor:
        """Returns the values.

        Args:
            values: A tensor.
        """
        return values

    def share_buffers(self, module: nn.Module) -> None:
        """Does nothing.

        Args:
            module: Not used.
        """

    def gather(self, value: Any) -> list[Any]:
        """Returns the value as the only one.

        Args:
            value: Any value.
        """
        return [value]
