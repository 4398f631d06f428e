"""The interface between a loss and the training loop that minimizes it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.datasets.share import Share
from pyro_gflows.training.settings import FitSettings

__all__ = ["FitDiverged", "Objective"]


class FitDiverged(RuntimeError):
    """Raised if the loss or its gradient is NaN or infinite, or if the loss has risen far above its first value.

    The message states what happened and what to change. The weights are then those of the last good checkpoint.

    Example:
        >>> import torch
        >>> from pyro_gflows import EquivariantFlow, FitSettings, GActNorm, InvariantNormal, VectorAction, fit
        >>> from pyro_gflows.training import Adam, Constant
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> settings = FitSettings(steps=9, optimizer=Adam(lr=1e9), schedule=Constant())
        >>> try:
        ...     fit(flow, torch.randn(100, 2), settings=settings, progress=False)
        ... except FitDiverged as error:
        ...     print(str(error)[:17])
        training diverged
    """


class Objective(nn.Module):
    """A loss for the weights of one module, and the batches that it is computed from; the base class of objectives.

    An objective is itself a module whose forward is the loss of a batch. This is what ``DistributedDataParallel`` has
    to wrap: gradients of a call that goes past the forward of the wrapped module are silently not synchronized. The
    training loop (optimizer, schedule, weight averages, checkpoints) uses only the methods below, so a new kind of
    training is a new subclass. Only ``forward`` has to be written; the other methods have defaults that do nothing.

    Args:
        module: The module that is trained, in place.
        settings: The settings of the run; by default ``FitSettings()``.

    Attributes:
        module: The module that is trained.
        batch_size: The number of events in a step, of all processes together; 1 by default.
        share: The part of each batch that this process takes; all of it by default.

    Example:
        >>> class Distance(Objective):
        ...     def forward(self, batch, step):
        ...         return (self.module.weight - 1.0).square().sum()
        >>> objective = Distance(nn.Linear(1, 1))
        >>> objective.loss(0).requires_grad, objective.validate()
        (True, None)
    """

    module: nn.Module

    def __init__(self, module: nn.Module, settings: FitSettings | None = None) -> None:
        super().__init__()
        self.module = module
        self._settings = settings or FitSettings()
        self.batch_size = 1
        self.share = Share()

    @property
    def settings(self) -> FitSettings:
        """The settings of the run."""
        return self._settings

    def forward(self, batch: Any, step: int) -> Tensor:
        """Returns the loss of a batch, in nats per event, with gradients.

        In one of several processes it is the loss of this process's share of a batch, so weighted that the mean over
        the processes is the loss of the whole batch.

        Args:
            batch: What :meth:`batch` returned.
            step: The number of steps that are already done.

        Raises:
            FitDiverged: The loss cannot be computed.
        """
        raise NotImplementedError

    def batch(self, step: int) -> Any:
        """Returns the next batch, or this process's share of it; None if the loss makes its own draws.

        Args:
            step: The number of steps that are already done.
        """
        return None

    def loss(self, step: int) -> Tensor:
        """Returns the loss of the next batch.

        Args:
            step: The number of steps that are already done.
        """
        loss: Tensor = self(self.batch(step), step)
        return loss

    def divide(self, share: Share) -> None:
        """Leaves to this process its share of every batch; called before the first batch is taken.

        Args:
            share: The part of this process.

        Raises:
            ValueError: A batch has fewer events than there are processes.
        """
        if 1 < self.batch_size < share.size:
            raise ValueError(
                f"expected at least one event of each batch for every process, got batches of {self.batch_size} for "
                f"{share.size} processes; raise batch_size, which counts the events of all processes together"
            )
        self.share = share

    def weight(self, count: int) -> float:
        """The factor on the mean loss of ``count`` events that makes the mean over processes that of the whole batch.

        Args:
            count: The number of events in this process's share of a batch.
        """
        return count * self.share.size / self.batch_size if self.share.size > 1 else 1.0

    def prepare(self, batch: Any) -> None:
        """Sets what has to be set from a batch before the first step, such as scales; by default nothing.

        Args:
            batch: The first batch, of all processes together.
        """

    def initialize(self) -> None:
        """Prepares the first step of a new run, for example by checking the data and setting scales from them."""

    def own_events(self) -> Tensor | None:
        """Returns the first events of this process, if nothing but their values tells whether processes see others.

        They are compared before the first step of a new run in several processes.
        """
        return None

    def divergence(self, first: float, smooth: float) -> str:
        """Returns the reason why a finite loss counts as diverged, or an empty string if it does not.

        Args:
            first: The loss of the first step.
            smooth: The moving average of the losses so far.

        Returns:
            The beginning of an error message.
        """
        return ""

    def fault(self, step: int) -> str:
        """Returns what is wrong with the last loss, which is not finite, if the objective knows it.

        Args:
            step: The number of steps that were done before.

        Returns:
            An error message, or an empty string.
        """
        return ""

    def remedy(self, lr: float, clip_norm: float | None) -> str:
        """Returns advice about a run that has diverged, as the end of an error message.

        Args:
            lr: The learning rate of the run.
            clip_norm: The norm to which gradients are clipped, or None.
        """
        return f"lower the learning rate (now lr={lr}) or clip harder (now clip_norm={clip_norm})"

    def tally(self, batch: Any) -> tuple[Tensor, int]:
        """Returns the sum of the losses of validation events, without gradients, and their number.

        By default it is the loss, counted as one event.

        Args:
            batch: Validation events.
        """
        with torch.no_grad():
            return self(batch, 0).detach().double(), 1

    def validate(self) -> tuple[float, int] | None:
        """Returns the sum of the losses of this process's validation events, in nats, and their number.

        None stands for no validation data. A sum and a number, unlike a mean, can be added up over processes that have
        different numbers of events.
        """
        return None

    def state(self) -> dict[str, Tensor]:
        """Returns the tensors, by name, from which a resumed run draws the same next batches."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores the position in the batches from the tensors of :meth:`state`.

        Args:
            state: The tensors of :meth:`state`, by name.
        """

    def check_same(self, state: dict[str, Tensor]) -> None:
        """Checks that an earlier run had the same data.

        Args:
            state: The tensors of :meth:`state` from the earlier run, by name.

        Raises:
            ValueError: The earlier run had other data.
        """
