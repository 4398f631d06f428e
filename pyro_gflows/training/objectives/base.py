"""The interface between a loss and the training loop that minimizes it."""

from __future__ import annotations

from torch import Tensor, nn

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


class Objective:
    """A loss for the weights of one module, which draws its own batches; the base class of all objectives.

    The training loop (optimizer, schedule, weight averages, checkpoints) uses only these methods, so a new kind of
    training is a new subclass. Only ``loss`` has to be written; the other methods have defaults that do nothing.

    Args:
        module: The module that is trained, in place.

    Attributes:
        module: The module that is trained.
        batch_size: The number of events in a step, for the progress bar; 1 by default.

    Example:
        >>> class Distance(Objective):
        ...     def loss(self, step):
        ...         return (self.module.weight - 1.0).square().sum()
        >>> objective = Distance(nn.Linear(1, 1))
        >>> objective.loss(0).requires_grad, objective.validate()
        (True, None)
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.batch_size = 1

    def loss(self, step: int) -> Tensor:
        """Returns the loss of a new batch, in nats per event, with gradients.

        Args:
            step: The number of steps that are already done.

        Raises:
            FitDiverged: The loss cannot be computed.
        """
        raise NotImplementedError

    def initialize(self) -> None:
        """Prepares the first step of a new run, for example by checking the data and setting scales from them."""

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

    def validate(self) -> float | None:
        """Returns the loss on validation data, in nats per event; None without validation data."""
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
