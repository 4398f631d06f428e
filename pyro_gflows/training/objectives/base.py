"""What a run of training minimizes, apart from how it is minimized."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["FitDiverged", "Objective"]


class FitDiverged(RuntimeError):
    """Training met NaN, infinity or a loss far above its start."""


class Objective:
    """A loss over batches that it draws itself, for the weights of one module.

    The loop of training (optimizer, schedule, averages, checkpoints) knows nothing but these methods, so a new kind of
    training is a new objective. Only ``loss`` has to be written; the other methods have defaults that do nothing.

    Args:
        module: What is trained, in place.

    Attributes:
        module: The same.
        batch_size: Events a step, for the progress bar; 1 unless an objective says more.
    """

    def __init__(self, module: nn.Module) -> None:
        self.module = module
        self.batch_size = 1

    def loss(self, step: int) -> Tensor:
        """The loss of one new batch, in nats an event, with gradients.

        Args:
            step: Steps that are done already.

        Raises:
            FitDiverged: The loss cannot be computed.
        """
        raise NotImplementedError

    def initialize(self) -> None:
        """Get ready for the first step of a new run: warn of what is wrong with the data, set scales from them."""

    def divergence(self, first: float, smooth: float) -> str:
        """What shows that a finite loss has diverged, as the beginning of a message; "" if nothing does.

        Args:
            first: The loss of the first step.
            smooth: The moving average of the losses so far.
        """
        return ""

    def remedy(self, lr: float, clip_norm: float | None) -> str:
        """What the user may do about a run that has diverged, as the end of a message.

        Args:
            lr: The learning rate of the run.
            clip_norm: The norm to which it clips gradients, if it does.
        """
        return f"lower the learning rate (now lr={lr}) or clip harder (now clip_norm={clip_norm})"

    def validate(self) -> float | None:
        """The loss on data that training does not see, in nats an event; None without such data."""
        return None

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint needs to draw the batches that come next, by name."""
        return {}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what :meth:`state` gave."""

    def check_same(self, state: dict[str, Tensor]) -> None:
        """Raise ValueError if what :meth:`state` gave in an earlier run shows that this is another one."""
