"""Maximum likelihood, one step at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import TYPE_CHECKING

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_gflows.infer.augment import Augmentation
from pyro_gflows.infer.dequantise import DequantisedFlow
from pyro_gflows.infer.evaluate import nll
from pyro_gflows.infer.training.average import weights
from pyro_gflows.infer.training.batches import Batches, FreshDraws, Sampler, ShuffledEpochs
from pyro_gflows.infer.training.data import check_data
from pyro_gflows.infer.training.settings import FitSettings
from pyro_gflows.infer.training.trainer import FitDiverged, Trainer
from pyro_gflows.transforms.data_dependent import leaving_alone_what_is_set

if TYPE_CHECKING:
    from pyro_gflows.flow import EquivariantFlow

__all__ = ["LikelihoodTrainer"]

_NATS_PER_DIMENSION = 10.0  # a smoothed loss this far above the first one has diverged


class LikelihoodTrainer(Trainer):
    """Minimises -E log p(x), or the bound of a dequantised flow, with Pyro's ``Trace_ELBO().differentiable_loss``.

    Args:
        flow: What is trained, in place. A dequantised flow brings a Pyro model and guide of its own.
        data: Events or a sampler of events.
        settings: How to train.
        augment: Called as ``augment(x, generator)`` on every batch, or None.
        validation: Held-out events, or None.
        initialize: Whether all data-dependent layers are set from the first batch, or those alone that are not set.
    """

    def __init__(
        self,
        flow: EquivariantFlow | DequantisedFlow,
        data: Tensor | Sampler,
        *,
        settings: FitSettings,
        augment: Augmentation | None,
        validation: Tensor | None,
        initialize: bool = False,
    ) -> None:
        super().__init__(flow, settings=settings)
        self.flow = flow
        self._augment = augment
        self._anew = initialize
        self._validation = validation
        generator = torch.Generator().manual_seed(settings.seed)
        kind = ShuffledEpochs if isinstance(data, Tensor) else FreshDraws
        self._batches: Batches = kind(data, settings.batch_size, generator)  # type: ignore[arg-type]
        self._loss = Trace_ELBO().differentiable_loss
        self._model: Callable[[Tensor], None] = self._of_data
        self._guide: Callable[[Tensor], None] = _nothing_to_infer
        if isinstance(flow, DequantisedFlow):
            self._model, self._guide = flow.model, flow.guide

    def initialize(self) -> None:
        first = self._next()  # also where nothing is to be set, so that the steps see the same batches
        with contextlib.nullcontext() if self._anew else leaving_alone_what_is_set(self.flow):
            self.flow.initialize(first)

    def loss(self) -> Tensor:
        x = self._next()
        if not x.isfinite().all():
            step = self.progress.step
            raise FitDiverged(f"the batch of step {step} holds NaN or infinity: check the sampler or augmentation")
        # The data are checked already, and NaN inside the flow gets a better message here than from a support check.
        with pyro.validation_enabled(False):
            loss: Tensor = self._loss(self._model, self._guide, x) / len(x)
        return loss

    def check_loss(self, value: float) -> None:
        now = self.progress
        now.first_loss = value if now.first_loss is None else now.first_loss
        smooth = value if now.smooth_loss is None else now.smooth_loss
        if smooth > now.first_loss + _NATS_PER_DIMENSION * self.flow.action.numel:
            raise FitDiverged(
                self.advice(f"the loss rose from {now.first_loss:.4g} to {smooth:.4g} by step {now.step}")
            )

    @property
    def batch_size(self) -> int:
        return self._batches.batch_size

    def state(self) -> dict[str, Tensor]:
        return self._batches.state()

    def restore_state(self, state: dict[str, Tensor]) -> None:
        self._batches.restore(state)

    def held_out_nll(self) -> float | None:
        return None if self._validation is None else self._nll(self._validation)

    def look(self) -> None:
        now = self.progress
        if self._validation is None or now.step % self.settings.held_out.every:
            return
        with self._average.applied():
            value = self._nll(self._validation)
            now.held_out_curve.append((now.step, value))
            if now.best_nll is not None and not value < now.best_nll:
                now.looks_without_gain += 1
                return
            now.best_nll, now.best_step, now.looks_without_gain = value, now.step, 0
            if self.settings.held_out.patience is not None:
                self._best = weights(self.flow)

    def _nll(self, x: Tensor) -> float:
        """The same random numbers at every look, so that looks differ by the weights alone."""
        devices = [x.device] if x.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.settings.seed)
            return nll(self.flow, x)

    def _of_data(self, x: Tensor) -> None:
        pyro.module("flow", self.flow)
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.flow.dist, obs=x)

    def _next(self) -> Tensor:
        x = self._batches.next()
        if self._augment is not None:
            x = self._augment(x, self._batches.generator)
        if self.progress.step == 0:
            check_data(x, event_shape=self.flow.action.event_shape, source="the first batch")
        return x.to(next(self.flow.parameters()))


def _nothing_to_infer(x: Tensor) -> None:
    """The guide of maximum likelihood."""
