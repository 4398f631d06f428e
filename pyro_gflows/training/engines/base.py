"""What the training loop needs from the devices that it runs on, and the plain implementation for one device."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.datasets.processes import Processes
from pyro_gflows.training.objectives.base import Objective

__all__ = ["Engine", "OneDevice"]


class Engine(Processes):
    """The devices of a run, as one of its processes sees them; the base class of both engines.

    :class:`OneDevice` is the engine without Lightning, and ``FabricEngine`` the one by its Fabric. There is one
    training loop over both.

    Args:
        share: The number of this process, and of all processes; by default there is one.

    Attributes:
        share: The number of this process, and of all processes.

    Example:
        >>> OneDevice().share
        Share(rank=0, size=1)
    """

    def set_up(self, objective: Objective, optimizer: torch.optim.Optimizer) -> Callable[[Any, int], Tensor]:
        """Returns the loss as a function of batch and step, by which all processes get the same gradients.

        Args:
            objective: The objective, whose weights and buffers become those of the first process.
            optimizer: The optimizer of its weights.
        """
        raise NotImplementedError

    def backward(self, loss: Tensor) -> None:
        """Computes the gradients of a loss, averaged over the processes.

        Args:
            loss: The loss of this process, a scalar.
        """
        raise NotImplementedError

    def clip(self, parameters: Iterable[nn.Parameter], max_norm: float) -> Tensor:
        """Scales the gradients to a norm of at most ``max_norm``, and returns the norm that they had.

        Every process has the same gradients, and so the same norm.

        Args:
            parameters: The weights with the gradients.
            max_norm: The largest norm over all of them together.
        """
        return torch.nn.utils.clip_grad_norm_(parameters, max_norm)


class OneDevice(Engine):
    """The device on which the weights are, in one process.

    Example:
        >>> engine = OneDevice()
        >>> engine.share, engine.gather("a")
        (Share(rank=0, size=1), ['a'])
    """

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
