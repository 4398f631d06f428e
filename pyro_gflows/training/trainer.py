"""The state of one training run for any objective, which takes steps and can be stored and restored."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.datasets.processes import on_all
from pyro_gflows.numerics.random_state import random_tensors, restore_random, seed_of_rank
from pyro_gflows.serialization.migrations import migrated_weights
from pyro_gflows.training.average import MovingAverage, copy_weights, weights
from pyro_gflows.training.checkpoint import Progress, Snapshot, optimizer_tensors, restore_optimizer
from pyro_gflows.training.divergence import check_step, count_step, trained_weights
from pyro_gflows.training.engines.base import Engine, OneDevice
from pyro_gflows.training.loader import check_different
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.settings import FitSettings
from pyro_gflows.transforms.data_dependent import mark_as_set

__all__ = ["Trainer"]

_CURVE_POINTS = 500  # of the training curve that is kept for plots


class Trainer:
    """Takes steps that minimize an objective, and holds the complete state of the run.

    Args:
        objective: The objective that is minimized.
        settings: The settings of the run.
        engine: The devices of the run; by default the one on which the weights are.

    Raises:
        ValueError: All weights are frozen.
    """

    def __init__(self, objective: Objective, *, settings: FitSettings, engine: Engine | None = None) -> None:
        self.engine: Engine = engine or OneDevice()
        self.objective = objective
        if self.engine.share.size > 1:
            objective.divide(self.engine.share)
        self.module = objective.module
        self.settings = settings
        self.progress = Progress()
        self._parameters = trained_weights(self.module)
        self._optimizer = settings.optimizer.make(self._parameters)
        self._average = MovingAverage(self.module, settings.ema_decay)
        self._best: dict[str, Tensor] = {}
        self._loss: Callable[[Any, int], Tensor] = objective

    def start(self) -> None:
        """Prepares the first step of a new run."""
        self.module.train()
        on_all(self.engine, self.objective.initialize)
        events = self.engine.gather(self.objective.own_events())
        on_all(self.engine, lambda: check_different([part for part in events if part is not None]))
        mark_as_set(self.module)
        self._loss = self.engine.set_up(self.objective, self._optimizer)
        self._average = MovingAverage(self.module, self.settings.ema_decay)

    def step(self) -> float:
        """Takes one optimizer step, validates if it is due, and returns the training loss in nats per event.

        Raises:
            FitDiverged: The loss or the gradient is not finite, or the loss is far above its first value.
        """
        began = time.perf_counter()
        now, optimizer = self.progress, self._optimizer
        for group in optimizer.param_groups:
            group["lr"] = self.settings.optimizer.lr * self.settings.schedule(now.step / self.settings.steps)
        if not self.module.training:  # a layer that was put into eval() since the start stays there
            self.module.train()
        optimizer.zero_grad()
        engine, clip = self.engine, self.settings.optimizer.clip_norm
        loss = self._loss(self.objective.batch(now.step), now.step)
        mean = engine.begin_mean(loss.detach())
        engine.backward(loss)
        norm = engine.clip(self._parameters, math.inf if clip is None else clip)
        # read together, since a GPU is waited for at each reading; every process reads the same values
        value, steepness = torch.stack([mean(), norm.to(loss)]).tolist()
        check_step(self.objective, self.settings, progress=now, loss=value, norm=steepness, gather=self.engine.gather)
        optimizer.step()
        count_step(now, value)
        self._average.update(now.step)
        if now.step % max(1, self.settings.steps // _CURVE_POINTS) == 0:
            now.train_curve.append((now.step, value))
        self._validate()
        now.seconds += time.perf_counter() - began
        return value

    @property
    def batch_size(self) -> int:
        """The number of events in a step."""
        return self.objective.batch_size

    @property
    def out_of_patience(self) -> bool:
        """Whether the validation loss has not gained for as many validations as the settings allow."""
        patience = self.settings.validation.patience
        return patience is not None and self.progress.validations_without_gain >= patience

    def finish(self) -> float | None:
        """Puts the final weights (best, averaged or last) into the module and returns their validation loss."""
        if self._best:
            copy_weights(self._best, self.module)
        elif self._average.values:
            copy_weights(self._average.values, self.module)
        self.module.eval()
        return self._validation_loss()

    def asked(self, *questions: bool) -> list[bool]:
        """Whether the answer to each question is yes in any process, for every process.

        Args:
            questions: The answers of this process.
        """
        if self.engine.share.size == 1:
            return list(questions)
        answers = torch.tensor(questions, dtype=torch.float32, device=self.device)
        return [answer > 0 for answer in self.engine.mean(answers).tolist()]

    def snapshot(self, identity: dict[str, Any]) -> Snapshot:
        """A copy of the complete state of the run.

        Args:
            identity: The properties that a resumed run must share.
        """
        self.engine.broadcast(self.module.buffers())
        groups: dict[str, dict[str, Tensor]] = {
            "flow": self.module.state_dict(),
            "average": self._average.values,
            "best": self._best,
            "optimizer": optimizer_tensors(self._optimizer),
        }
        own = {"batches": self.objective.state(), "random": random_tensors(self.device)}
        tensors = _named(groups)
        for rank, theirs in enumerate(self.engine.gather(_named(own))):
            tensors |= {f"{_prefix(rank)}{name}": tensor for name, tensor in theirs.items()}
        return Snapshot(identity, copy.deepcopy(self.progress), tensors, self.engine.share.size)

    def resume(self, snapshot: Snapshot) -> None:
        """Continues from the snapshot of an earlier run, which may have ended with fewer steps than this run has.

        Args:
            snapshot: The snapshot of the earlier run.

        Raises:
            ValueError: The earlier run had other data, or was of an earlier version in which a layer had other weights.
        """
        self._require_same_weights(snapshot)
        share = self.engine.share
        if snapshot.processes == share.size:
            stored = snapshot.group(f"{_prefix(share.rank)}batches")
            on_all(self.engine, lambda: self.objective.check_same(stored))
        on_all(self.engine, lambda: self.restore(snapshot))
        self._loss = self.engine.set_up(self.objective, self._optimizer)
        if snapshot.identity["settings"]["steps"] != repr(self.settings.steps):
            self.progress.validations_without_gain = 0
        self.progress.stopped = self.out_of_patience

    def _require_same_weights(self, snapshot: Snapshot) -> None:
        """Raise ValueError if weights were stored in another layout: the optimizer's state cannot be converted."""
        stored = migrated_weights(snapshot.group("flow"), self.module.state_dict().keys())
        for name, parameter in self.module.named_parameters():
            if name not in stored or stored[name].shape != parameter.shape:
                raise ValueError(
                    f"cannot resume: an earlier version wrote the checkpoint, in which the layer of {name} had other "
                    "weights, so that the state of the optimizer does not fit; end the run with that version and load "
                    "the flow that it saves, or start a new run in another folder"
                )

    @property
    def device(self) -> torch.device:
        """The device of the weights."""
        return self._parameters[0].device

    def losses(self, value: float) -> dict[str, float]:
        """The losses of the last step, in nats per event: "train", and "validation" if it was measured.

        Args:
            value: The training loss.
        """
        curve = self.progress.validation_curve
        is_new = bool(curve) and curve[-1][0] == self.progress.step
        return {"train": value, **({"validation": curve[-1][1]} if is_new else {})}

    def restore(self, snapshot: Snapshot) -> None:
        """Restores the state of a snapshot.

        Args:
            snapshot: The snapshot.
        """
        device = self.device
        self.module.train()
        known = self.module.state_dict().keys()
        self.module.load_state_dict(migrated_weights(snapshot.group("flow"), known))
        self._average.restore(migrated_weights(snapshot.group("average"), known))
        best = migrated_weights(snapshot.group("best"), known)
        self._best = {name: tensor.to(device) for name, tensor in best.items()}
        restore_optimizer(self._optimizer, snapshot.group("optimizer"))
        self.progress = copy.deepcopy(snapshot.progress)
        rank, size = self.engine.share.rank, self.engine.share.size
        if snapshot.processes != size:
            # the position in the data is common to all processes; their random draws have to begin anew
            self.objective.restore(snapshot.group("batches"))
            torch.manual_seed(seed_of_rank(self.settings.seed, rank, size, self.progress.step))
            return
        self.objective.restore(snapshot.group(f"{_prefix(rank)}batches"))
        restore_random(snapshot.group(f"{_prefix(rank)}random"), device)

    def _validate(self) -> None:
        """Measures the validation loss if it is due, and keeps the weights if they are the best so far."""
        now = self.progress
        if now.step % self.settings.validation.every:
            return
        with self._average.applied():
            value = self._validation_loss()
            if value is None:
                return
            now.validation_curve.append((now.step, value))
            if now.best_nll is not None and not value < now.best_nll:
                now.validations_without_gain += 1
                return
            now.best_nll, now.best_step, now.validations_without_gain = value, now.step, 0
            if self.settings.validation.patience is not None:
                self._best = weights(self.module)

    def _validation_loss(self) -> float | None:
        """The mean loss of the validation events of all processes, in nats per event."""
        self.engine.broadcast(self.module.buffers())
        tally = self.objective.validate()
        return None if tally is None else self.engine.mean_of_all(*tally)


def _named(groups: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """A copy of the tensors of some groups, by "group/name"."""
    return {f"{group}/{name}": t.detach().clone() for group, ts in groups.items() for name, t in ts.items()}


def _prefix(rank: int) -> str:
    """The beginning of the names of what belongs to one process; those of the first one are as in a run of one."""
    return "" if rank == 0 else f"rank{rank}/"
