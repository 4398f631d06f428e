"""Batches for an objective that is not the likelihood of a flow, such as the ELBO of a model of rows."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torch.utils.data import DataLoader

from pyro_gflows.datasets.rows import Rows
from pyro_gflows.datasets.share import Share
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.batches import Sampler, batches_of
from pyro_gflows.training.loader import LoaderBatches
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.settings import FitSettings

__all__ = ["Stream"]


class Stream(Objective):
    """The batches of another objective, in the order in which fit takes them.

    Args:
        objective: The objective that computes the loss.
        data: Rows, a loader or a sampler.
        settings: The batch size and the seed.
        augment: A function ``augment(x, generator)`` that is applied to every batch, or None.
    """

    def __init__(
        self,
        objective: Objective,
        data: Rows | DataLoader[Any] | Sampler,
        *,
        settings: FitSettings,
        augment: Augmentation | None = None,
    ) -> None:
        super().__init__(objective.module, settings)
        self._whole = (objective,)  # in a tuple, so that it does not become a part of this one
        self._augment = augment
        self._new = lambda share: batches_of(data, settings.batch_size, settings.seed, share=share)
        self._batches = self._new(self.share)
        self.batch_size = self._batches.batch_size

    def divide(self, share: Share) -> None:
        """Leaves to this process its share of every batch.

        Args:
            share: The part of this process.
        """
        super().divide(share)
        self._batches = self._new(share)

    def weight(self, count: int) -> float:
        """The factor on the loss of ``count`` events; 1 for a loader, whose processes have batches of their own.

        Args:
            count: The number of events in this process's share of a batch.
        """
        return 1.0 if isinstance(self._batches, LoaderBatches) else super().weight(count)

    def initialize(self) -> None:
        """Prepares the objective from the first batch, of all processes together."""
        self._whole[0].prepare(self._next(whole=True))

    def batch(self, step: int) -> Tensor:
        """Returns the next batch, or this process's share of it.

        Args:
            step: Not used.
        """
        return self._next()

    def state(self) -> dict[str, Tensor]:
        """Returns the position in the data."""
        return self._batches.state()

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores the position in the data.

        Args:
            state: The tensors of :meth:`state`, by name.
        """
        self._batches.restore(state)

    def _next(self, *, whole: bool = False) -> Tensor:
        x = self._batches.next(whole=whole)
        return x if self._augment is None else self._augment(x, self._batches.generator)
