"""The objective of maximum likelihood."""

from __future__ import annotations

import contextlib
import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from pyro_gflows.datasets.array_rows import event_part
from pyro_gflows.datasets.checks import check_batch
from pyro_gflows.datasets.rows import Rows, tensor_of
from pyro_gflows.datasets.share import Share
from pyro_gflows.datasets.support import warn_off_support
from pyro_gflows.evaluation.scores import log_probs
from pyro_gflows.flows.variational import VariationalFlow
from pyro_gflows.numerics.random_state import random_state_kept, seed_of_rank
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.batches import FreshDraws, Sampler, ShuffledEpochs, StatefulSampler, batches_of
from pyro_gflows.training.identity import same_values
from pyro_gflows.training.loader import LoaderBatches
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.objectives.data_warnings import has_other_coordinates, is_seen_as_stored, warn_of_data
from pyro_gflows.training.settings import FitSettings
from pyro_gflows.transforms.data_dependent import leaving_alone_what_is_set

if TYPE_CHECKING:
    from pyro_gflows.flows.equivariant_flow import EquivariantFlow

__all__ = ["Likelihood"]

_NATS_PER_DIMENSION = 10.0  # a smoothed loss this far above the first one counts as diverged
_COMPARED_ROWS = 8  # of the first batch, which a resumed run compares with the earlier run


class Likelihood(Objective):
    """The mean negative log-density of data under a flow, or the variational bound of a VariationalFlow.

    :func:`fit` minimizes it. It is the mean of what a call of the flow returns, so that a wrapper of the flow sees
    every step.

    Args:
        flow: The flow that is trained, in place. A VariationalFlow has its own Pyro model and guide.
        data: Events, a loader of events or a sampler of events; None where batches come from elsewhere, as in a loop of
            your own, in which ``objective(batch)`` is the loss.
        settings: The settings of the run; by default ``FitSettings()``.
        augment: A function ``augment(x, generator)`` that is applied to every batch, or None.
        validation: Validation events, or None.
        initialize: Whether the first batch sets all data-dependent layers, or only the layers that are not set yet.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> objective = Likelihood(flow)
        >>> round(objective(torch.zeros(100, 2)).item(), 4)  # log(2 pi)
        1.8379
    """

    def __init__(
        self,
        flow: EquivariantFlow | VariationalFlow,
        data: Rows | DataLoader[Any] | Sampler | None = None,
        *,
        settings: FitSettings | None = None,
        augment: Augmentation | None = None,
        validation: Rows | None = None,
        initialize: bool = False,
    ) -> None:
        super().__init__(flow, settings)
        # in a tuple, so that it does not count as a weight of its own; to look for it costs more than a small step
        self._one_weight = (next(flow.parameters()),)
        self._augment = augment
        self._sets_all = initialize
        self._validation = validation
        self._data = data
        self._batches = None if data is None else self._new_batches()
        self.batch_size = self._settings.batch_size if self._batches is None else self._batches.batch_size
        self._first = self._batch = torch.empty(0)

    @property
    def _like(self) -> Tensor:
        """A weight, which tells dtype and device."""
        return self._one_weight[0]

    @property
    def flow(self) -> EquivariantFlow | VariationalFlow:
        """The flow that is trained."""
        return self.module  # type: ignore[return-value]

    def divide(self, share: Share) -> None:
        """Leaves to this process its share of every batch.

        Args:
            share: The part of this process.
        """
        super().divide(share)
        if self._data is not None:
            self._batches = self._new_batches()

    def initialize(self) -> None:
        """Checks the data, and sets data-dependent layers from the first batch."""
        warn_of_data(self.flow, self._data, augment=self._augment, settings=self._settings)
        # also if no layer is to be set, so that the steps use the same batches; and all of a batch of stored rows, so
        # that layers start from the same scales in any number of processes
        self.prepare(self._next(whole=True))

    def prepare(self, batch: Any) -> None:
        """Sets data-dependent layers from events.

        Args:
            batch: Events, shape ``(rows,) + event_shape``, or a tuple that begins with them.
        """
        first = event_part(batch).to(self._like)
        with contextlib.nullcontext() if self._sets_all else leaving_alone_what_is_set(self.flow):
            self.flow.initialize(first)

    def own_events(self) -> Tensor | None:
        """Returns the first events of a loader, which may give all processes the same."""
        return self._first if isinstance(self._batches, LoaderBatches) else None

    def batch(self, step: int) -> Tensor:
        """Returns the next batch in the dtype of the weights, or this process's share of it.

        Args:
            step: The number of steps that are already done.
        """
        return self._next()

    def forward(self, batch: Any, step: int = 0) -> Tensor:
        """Returns the mean negative log-density of a batch, in nats per event.

        Args:
            batch: Events, shape ``(rows,) + event_shape``, or a tuple that begins with them, such as (event, label).
            step: Not used.
        """
        batch = event_part(batch).to(self._like)
        self._batch = batch
        # The data are already checked, and the trainer reports NaN inside the flow better than a support check.
        with pyro.validation_enabled(False):
            scores: Tensor = self.flow(batch)
        loss = -scores.mean()
        return loss if self.share.size == 1 else loss * self.weight(len(batch))

    def weight(self, count: int) -> float:
        """The factor on the mean loss of ``count`` events; 1 for a loader, whose processes have batches of their own.

        Args:
            count: The number of events in this process's share of a batch.
        """
        return 1.0 if isinstance(self._batches, LoaderBatches) else super().weight(count)

    def fault(self, step: int) -> str:
        """Returns what is wrong with the batch of the last loss, or nothing.

        Args:
            step: The number of steps that were done before.
        """
        if self._batch.isfinite().all():
            return ""
        return f"the batch of step {step} holds NaN or infinity: check the sampler or augmentation"

    def divergence(self, first: float, smooth: float) -> str:
        """Returns the reason why the loss counts as diverged: it has risen by more than 10 nats per dimension.

        Args:
            first: The loss of the first step.
            smooth: The moving average of the losses so far.
        """
        if smooth > first + _NATS_PER_DIMENSION * self.flow.action.numel:
            return f"the loss rose from {first:.4g} to {smooth:.4g}"
        return ""

    def remedy(self, lr: float, clip_norm: float | None) -> str:
        """Returns advice about a run that has diverged.

        Args:
            lr: The learning rate of the run.
            clip_norm: The norm to which gradients are clipped, or None.
        """
        return (
            f"lower the learning rate (now lr={lr}), clip harder (now clip_norm={clip_norm}), or scale the data to "
            "unit standard deviation (and pass initialize=True, so that the flow starts from their new scale)"
        )

    def state(self) -> dict[str, Tensor]:
        """Returns the position in the data and a few rows of the first batch, for checkpoints."""
        return {**self._source.state(), "first_batch": self._first}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores the position in the data.

        Args:
            state: The tensors of :meth:`state`, by name.
        """
        self._first = state.get("first_batch", self._first)
        self._source.restore(state)

    def check_same(self, state: dict[str, Tensor]) -> None:
        """Checks that an earlier run had the same first batch.

        Args:
            state: The tensors of :meth:`state` from the earlier run, by name.

        Raises:
            ValueError: The first batch differs.
        """
        stored = state.get("first_batch", torch.empty(0))
        sampler = self._data
        if not len(stored) or (callable(sampler) and isinstance(sampler, StatefulSampler)):
            return  # the draws of a sampler with a state depend on its state
        first = self._first_rows(state)
        if same_values(stored, first):
            return
        if not same_values(first, self._first_rows(state), exact=True):
            warnings.warn(
                "data and augmentation returned different events in two calls from the same random state, so the first "
                "batch is left out of the comparison with the earlier run; use the generator in their arguments, or "
                "torch's global one, so that a resumed run ends in the same weights as an unbroken one",
                stacklevel=2,
            )
            return
        raise ValueError(
            "cannot resume: the first batch of this run differs from the first batch of the run in the folder, so the "
            "data, the sampler or the augmentation differ; resume with the same ones, or start a new run in another "
            "folder"
        )

    def _first_rows(self, state: dict[str, Tensor]) -> Tensor:
        """The rows of the first batch that are compared, in the kind of order of the run with this state."""
        self._first = torch.empty(0)
        self._batches = self._new_batches()
        if isinstance(self._batches, ShuffledEpochs):
            self._batches.take_kind_of(state)
        torch.manual_seed(seed_of_rank(self._settings.seed, self.share.rank))
        self._next(whole=True)
        return self._first

    def _new_batches(self) -> ShuffledEpochs | FreshDraws | LoaderBatches:
        assert self._data is not None
        return batches_of(self._data, self._settings.batch_size, self._settings.seed, share=self.share)

    @property
    def _source(self) -> ShuffledEpochs | FreshDraws | LoaderBatches:
        """The batches.

        Raises:
            ValueError: There are no data.
        """
        if self._batches is None:
            raise ValueError("expected data to take batches from, got Likelihood(flow) without data; pass a batch")
        return self._batches

    def validate(self) -> tuple[float, int] | None:
        """Returns the summed NLL of the validation data, or its bound, with the same random draws every time."""
        if self._validation is None:
            return None
        device = self._like.device
        with random_state_kept(device, seed=seed_of_rank(self._settings.seed, self.share.rank)):
            parts = [self.tally(block) for block in self._validation.blocks(1024, self.share)]
        return float(sum(losses for losses, _ in parts)), sum(count for _, count in parts)

    def tally(self, batch: Any) -> tuple[Tensor, int]:
        """Returns the summed negative log-density of validation events, and their number.

        Args:
            batch: Events, or a tuple that begins with them.
        """
        scores = log_probs(self.flow, event_part(batch)).double()
        return -scores.sum(), len(scores)

    def _next(self, *, whole: bool = False) -> Tensor:
        """The next batch in the dtype of the weights: this process's share, or the whole of a batch of stored rows."""
        like = self._like
        first = not len(self._first)
        x: Any = self._source.next(whole=whole)
        if isinstance(x, np.ndarray):
            x = tensor_of(x)
        if first:
            x = check_batch(x, event_shape=self.flow.action.event_shape, dtype=like.dtype)
        x = x.to(like)
        if self._augment is not None:
            x = self._augment(x, self._source.generator)
        if first:
            check_batch(x, event_shape=self.flow.action.event_shape, dtype=like.dtype)
            self._first = x[:_COMPARED_ROWS].detach().clone()
            if not is_seen_as_stored(self.flow, self._data, self._augment) and not has_other_coordinates(self.flow):
                warn_off_support(x.detach(), self.flow.action)
        return x.to(like)
