"""One run of maximum likelihood as an object that can take a step, be written down, and be taken up again."""

from __future__ import annotations

import copy
import math
import time
from typing import TYPE_CHECKING, Any

import pyro
import torch
from pyro.infer import Trace_ELBO
from torch import Tensor

from pyro_gflows.infer.augment import Augmentation
from pyro_gflows.infer.average import MovingAverage, copy_weights, weights
from pyro_gflows.infer.batches import Batches, FreshDraws, Sampler, ShuffledEpochs
from pyro_gflows.infer.checkpoint import Progress, Snapshot, optimizer_tensors, restore_optimizer
from pyro_gflows.infer.data import check_data
from pyro_gflows.infer.evaluate import nll
from pyro_gflows.infer.settings import FitSettings

if TYPE_CHECKING:
    from pyro_gflows.flow import EquivariantFlow

__all__ = ["FitDiverged", "Trainer"]

_CURVE_POINTS = 500  # of the training curve that is kept for the picture
_NATS_PER_DIMENSION = 10.0  # a smoothed loss this far above the first one has diverged


class FitDiverged(RuntimeError):
    """Training met NaN, infinity or a loss far above its start."""


class Trainer:
    """Holds all that changes during a run.

    Args:
        flow: The flow, trained in place.
        data: Events or a sampler of events.
        settings: How to train.
        augment: Called as ``augment(x, generator)`` on every batch, or None.
        validation: Held-out events, or None.
    """

    def __init__(
        self,
        flow: EquivariantFlow,
        data: Tensor | Sampler,
        *,
        settings: FitSettings,
        augment: Augmentation | None,
        validation: Tensor | None,
    ) -> None:
        self.flow = flow
        self.settings = settings
        self.progress = Progress()
        self._augment = augment
        self._validation = validation
        generator = torch.Generator().manual_seed(settings.seed)
        kind = ShuffledEpochs if isinstance(data, Tensor) else FreshDraws
        self._batches: Batches = kind(data, settings.batch_size, generator)  # type: ignore[arg-type]
        self._parameters = [p for p in flow.parameters() if p.requires_grad]
        self._optimizer = settings.optimizer.make(self._parameters)
        self._average = MovingAverage(flow, settings.ema_decay)
        self._best: dict[str, Tensor] = {}
        self._loss = Trace_ELBO().differentiable_loss

    def start(self) -> None:
        """Initialise the layers that look at data, on the first batch."""
        self.flow.train()
        self.flow.initialize(self._next())
        self._average = MovingAverage(self.flow, self.settings.ema_decay)

    def step(self) -> float:
        """One optimizer step and whatever is due after it; the training NLL in nats an event.

        Raises:
            FitDiverged: The loss or the gradient is not finite, or the loss is far above its start.
        """
        began = time.perf_counter()
        now, optimizer = self.progress, self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.settings.optimizer.lr * self.settings.schedule(now.step / self.settings.steps)
        x = self._next()
        if not x.isfinite().all():
            raise FitDiverged(f"the batch of step {now.step} holds NaN or infinity: check the sampler or augmentation")
        self.flow.train()
        optimizer.zero_grad()
        # The data are checked already, and NaN inside the flow gets a better message here than from a support check.
        with pyro.validation_enabled(False):
            loss = self._loss(self._model, _no_guide, x) / len(x)
        value = loss.item()
        self._check(value)
        loss.backward()
        clip = self.settings.optimizer.clip_norm
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, math.inf if clip is None else clip)
        if not norm.isfinite():
            raise FitDiverged(
                self._advice(f"the gradient has norm {float(norm)} at step {now.step} (loss {value:.4g})")
            )
        optimizer.step()
        now.step += 1
        self._average.update(now.step)
        now.smooth_loss = value if now.smooth_loss is None else 0.9 * now.smooth_loss + 0.1 * value
        if now.step % max(1, self.settings.steps // _CURVE_POINTS) == 0:
            now.train_curve.append((now.step, value))
        if self._validation is not None and now.step % self.settings.held_out.every == 0:
            self._look(self._validation)
        now.seconds += time.perf_counter() - began
        return value

    @property
    def batch_size(self) -> int:
        """Events a step."""
        return self._batches.batch_size

    @property
    def out_of_patience(self) -> bool:
        """Whether the held-out NLL has not gained for as many looks as the settings allow."""
        patience = self.settings.held_out.patience
        return patience is not None and self.progress.looks_without_gain >= patience

    def finish(self) -> float | None:
        """Leave the weights to return in the flow (best, averaged or last); their held-out NLL."""
        if self._best:
            copy_weights(self._best, self.flow)
        elif self._average.values:
            copy_weights(self._average.values, self.flow)
        self.flow.eval()
        return None if self._validation is None else nll(self.flow, self._validation)

    def snapshot(self, identity: dict[str, Any]) -> Snapshot:
        """Everything that changes, copied."""
        groups: dict[str, dict[str, Tensor]] = {
            "flow": self.flow.state_dict(),
            "average": self._average.values,
            "best": self._best,
            "optimizer": optimizer_tensors(self._optimizer),
            "batches": self._batches.state(),
            "random": self._random_state(),
        }
        tensors = {f"{group}/{name}": t.detach().clone() for group, ts in groups.items() for name, t in ts.items()}
        return Snapshot(identity, copy.deepcopy(self.progress), tensors)

    def restore(self, snapshot: Snapshot) -> None:
        """Take up a snapshot."""
        device = next(self.flow.parameters()).device
        self.flow.load_state_dict(snapshot.group("flow"))
        self._average.restore(snapshot.group("average"))
        self._best = {name: tensor.to(device) for name, tensor in snapshot.group("best").items()}
        restore_optimizer(self._optimizer, snapshot.group("optimizer"))
        self._batches.restore(snapshot.group("batches"))
        random = snapshot.group("random")
        torch.set_rng_state(random["cpu"])
        if "cuda" in random and device.type == "cuda":
            torch.cuda.set_rng_state(random["cuda"], device)
        self.progress = copy.deepcopy(snapshot.progress)

    def _model(self, x: Tensor) -> None:
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

    def _look(self, validation: Tensor) -> None:
        now = self.progress
        with self._average.applied():
            value = nll(self.flow, validation)
            now.held_out_curve.append((now.step, value))
            if now.best_nll is not None and not value < now.best_nll:
                now.looks_without_gain += 1
                return
            now.best_nll, now.best_step, now.looks_without_gain = value, now.step, 0
            if self.settings.held_out.patience is not None:
                self._best = weights(self.flow)

    def _random_state(self) -> dict[str, Tensor]:
        device = next(self.flow.parameters()).device
        cuda = {"cuda": torch.cuda.get_rng_state(device)} if device.type == "cuda" else {}
        return {"cpu": torch.get_rng_state(), **cuda}

    def _check(self, loss: float) -> None:
        now = self.progress
        if not math.isfinite(loss):
            raise FitDiverged(self._advice(f"the loss is {loss} at step {now.step}"))
        now.first_loss = loss if now.first_loss is None else now.first_loss
        smooth = loss if now.smooth_loss is None else now.smooth_loss
        if smooth > now.first_loss + _NATS_PER_DIMENSION * self.flow.action.numel:
            raise FitDiverged(
                self._advice(f"the loss rose from {now.first_loss:.4g} to {smooth:.4g} by step {now.step}")
            )

    def _advice(self, what: str) -> str:
        optimizer = self.settings.optimizer
        return (
            f"training diverged: {what}; lower the learning rate (now lr={optimizer.lr}), clip harder "
            f"(now clip_norm={optimizer.clip_norm}), or scale the data to unit standard deviation"
        )


def _no_guide(x: Tensor) -> None:
    """Maximum likelihood has nothing to infer."""
