"""FlowModule: an objective as a LightningModule, which the Trainer of Lightning trains."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule
from torch import Tensor, nn

from pyro_gflows.datasets.processes import Processes, on_all
from pyro_gflows.datasets.share import Share
from pyro_gflows.lightning.checks import check_precision, check_settings
from pyro_gflows.lightning.data import FlowData
from pyro_gflows.lightning.ending import EndAtError
from pyro_gflows.lightning.loaders import OWN_VALIDATION, NoEvents, OwnBatch, Steps
from pyro_gflows.lightning.resuming import RunRandom, resume_run, stored_run
from pyro_gflows.lightning.validation import ValidationPass
from pyro_gflows.numerics.random_state import seed_of_rank
from pyro_gflows.training.checkpoint import Progress
from pyro_gflows.training.divergence import check_step, count_step, trained_weights
from pyro_gflows.training.loader import check_different
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.objectives.likelihood import Likelihood
from pyro_gflows.training.settings import FitSettings
from pyro_gflows.transforms.data_dependent import mark_as_set

__all__ = ["FlowModule"]


class FlowModule(LightningModule):
    """An objective as a LightningModule, for training by the Trainer of Lightning instead of ``fit``.

    Use it for what the Trainer has beside the loop: loggers, profilers, its callbacks, its strategies. With
    :class:`FlowData` and ``Trainer(max_steps=settings.steps)``, the loss curve is that of
    :func:`~pyro_gflows.training.fit` with the same settings, on any number of processes. The optimizer, its schedule
    (set at every step) and the clipping of gradients come from the settings, and a loss that is not finite ends the
    run with advice. The flow itself is trained, and is in evaluation mode after the fit.

    What else a run may have are callbacks of Lightning: ``EMAWeightAveraging`` in place of ``ema_decay``,
    ``EarlyStopping("validation_nll")`` in place of ``patience``, and ``ModelCheckpoint(monitor="validation_nll")`` for
    the best weights. ``Trainer(val_check_interval=250, check_val_every_n_epoch=None)`` validates every 250 steps.

    At every step "train" is logged, the loss in nats per event as a mean over all processes, and at a validation
    "validation_nll", the sum over the validation events of all processes divided by their number.

    Args:
        objective: An objective, such as ``Energy(flow, log_density)`` or ``ELBO(model, guide)``; or a flow, which
            stands for ``Likelihood(flow)``.
        settings: The settings of the run; by default those of the objective.

    Raises:
        TypeError: The objective is neither an objective nor a flow.
        ValueError: The settings ask for something that a callback of Lightning does; or all weights are frozen.

    Example:
        >>> import lightning
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> from pyro_gflows.training import Energy
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> settings = FitSettings(steps=3, batch_size=20)
        >>> energy = Energy(flow, lambda x: -0.5 * x.square().sum(-1), settings=settings)
        >>> trainer = lightning.Trainer(
        ...     max_steps=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        ... )
        >>> trainer.fit(FlowModule(energy))
        >>> trainer.global_step, flow.training
        (3, False)
    """

    objective: Objective

    def __init__(self, objective: Objective | nn.Module, *, settings: FitSettings | None = None) -> None:
        super().__init__()
        if not isinstance(objective, Objective):
            if not (isinstance(objective, nn.Module) and hasattr(objective, "action")):
                raise TypeError(
                    "expected an objective such as Likelihood(flow), Energy(flow, log_density) or ELBO(model, guide), "
                    f"or a flow, got {type(objective).__name__}"
                )
            objective = Likelihood(objective, settings=settings)  # type: ignore[arg-type]
        settings = settings or objective.settings
        check_settings(settings)
        trained_weights(objective.module)
        self.objective = objective
        self.settings = settings
        self.progress = Progress()
        self._loss = torch.tensor(math.nan)
        self._stored: dict[str, Any] = {}
        self._random = RunRandom()
        self._serves_itself = False
        self.eval()  # and stays so here where the fit is in processes that end with it

    # -- set-up -------------------------------------------------------------------------------------------------------
    def setup(self, stage: str) -> None:
        """Checks the Trainer.

        Args:
            stage: What the Trainer is about to do.

        Raises:
            ValueError: The Trainer computes in a precision in which a log-det has too few digits.
        """
        check_precision(str(self.trainer.precision))
        self._serves_itself = False
        if stage == "fit":
            self.train()

    def train_dataloader(self) -> Iterable[Any]:
        """The batches of an objective that has its own data or draws, as many as the settings have steps."""
        self._serves_itself = True
        if (share := self._processes.share).size > 1:
            self.objective.divide(share)
        return Steps(OwnBatch, self.settings.steps)

    def val_dataloader(self) -> Iterable[Any]:
        """The validation events of the objective itself, if it has any."""
        return OWN_VALIDATION

    def configure_optimizers(self) -> Any:
        """The optimizer of the settings, and their schedule, which is set at every step."""
        settings = self.settings
        optimizer = settings.optimizer.make(trained_weights(self.objective.module))
        last = settings.steps - 1
        factor = lambda step: settings.schedule(min(step, last) / settings.steps)  # noqa: E731
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_train_start(self) -> None:
        """Seeds the random draws, and sets data-dependent layers from the first batch of a new run."""
        processes, share = self._processes, self._processes.share
        self._random.begin(self.device)
        self.progress = Progress(self.trainer.global_step)
        if self._is_resumed:
            batches = resume_run(self._stored, processes, self.device, progress=self.progress, seed=self.settings.seed)
            if self._serves_itself and batches:
                self.objective.restore(batches)
            return
        torch.manual_seed(seed_of_rank(self.settings.seed, share.rank))
        with warnings.catch_warnings():
            if share.rank > 0:  # the first process says it already
                warnings.simplefilter("ignore")
            source = self.objective if self._data is None else self._data.stream
            if self._data is not None or self._serves_itself:
                on_all(processes, source.initialize)
                events = [part for part in processes.gather(source.own_events()) if part is not None]
                on_all(processes, lambda: check_different(events))
                self._set()

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Sets data-dependent layers from the first batch of a DataLoader.

        Args:
            batch: The batch of this process.
            batch_idx: The number of the batch in the epoch.
        """
        is_first = self.trainer.global_step == 0 and batch_idx == 0 and not self._is_resumed
        if is_first and self._data is None and not self._serves_itself:
            self.objective.prepare(batch)
            self._set()

    def _set(self) -> None:
        mark_as_set(self.objective.module)
        self._processes.broadcast([*self.objective.parameters(), *self.objective.buffers()])

    # -- a step -------------------------------------------------------------------------------------------------------
    def forward(self, batch: Any, step: int = 0) -> Tensor:
        """Returns the loss of a batch.

        Args:
            batch: The batch.
            step: The number of steps that are already done.
        """
        loss: Tensor = self.objective(batch, step)
        return loss

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        """Returns the loss of a batch, so weighted that its mean over the processes is that of the whole batch.

        Args:
            batch: The batch of this process.
            batch_idx: The number of the batch in the epoch.
        """
        step = self.trainer.global_step
        loss = self(self.objective.batch(step) if isinstance(batch, OwnBatch) else batch, step)
        if self._data is not None and self.trainer.world_size > 1:
            loss = loss * self._data.stream.weight(len(batch))
        self._loss = loss.detach()
        return loss

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradients by the settings, unless the Trainer says otherwise, and checks loss and gradient.

        Args:
            optimizer: The optimizer.
            gradient_clip_val: What the Trainer says.
            gradient_clip_algorithm: How the Trainer clips.

        Raises:
            FitDiverged: The loss or the gradient is not finite, or the loss is far above its first value.
        """
        clip = self.settings.optimizer.clip_norm if gradient_clip_val is None else None
        weights = [weight for group in optimizer.param_groups for weight in group["params"]]
        norm = torch.nn.utils.clip_grad_norm_(weights, math.inf if clip is None else clip)
        mean = self._processes.mean(torch.stack([self._loss, norm.to(self._loss)]))
        value, steepness = mean.tolist()
        self.progress.step = self.trainer.global_step
        gather = self._processes.gather
        check_step(self.objective, self.settings, progress=self.progress, loss=value, norm=steepness, gather=gather)
        count_step(self.progress, value)
        self.log("train", mean[0], prog_bar=True)
        if gradient_clip_val is not None:
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # -- validation ---------------------------------------------------------------------------------------------------
    def on_validation_epoch_start(self) -> None:
        """Begins a pass over the validation events."""
        processes = self._processes
        processes.broadcast(self.objective.buffers())  # such as the running means of a network of the user
        self._pass = ValidationPass(processes, self.device, seed=self.settings.seed)

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        """Adds up the losses of a block of validation events.

        Args:
            batch: The events.
            batch_idx: The number of the block.
        """
        if isinstance(batch, NoEvents):
            return
        self._pass.add(self.objective.validate() if isinstance(batch, OwnBatch) else self.objective.tally(batch))

    def on_validation_epoch_end(self) -> None:
        """Logs the mean over the validation events of all processes."""
        value = self._pass.close()
        if value is not None:
            self.log("validation_nll", torch.tensor(value, dtype=torch.float64), prog_bar=True, sync_dist=True)

    # -- checkpoints and the end --------------------------------------------------------------------------------------
    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the random states of all processes, the position in the objective's own data, and the losses.

        Args:
            checkpoint: The checkpoint of the Trainer.
        """
        batches = self.objective.state() if self._serves_itself else {}
        checkpoint["pyro_gflows"] = stored_run(self._processes, self._random, progress=self.progress, batches=batches)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps them until the run goes on.

        Args:
            checkpoint: The checkpoint of the Trainer.
        """
        self._stored = checkpoint.get("pyro_gflows", {})

    def on_train_end(self) -> None:
        """Gives all processes the same buffers, and ends the run."""
        self._processes.broadcast(self.objective.buffers())
        self.end_run()

    def configure_callbacks(self) -> list[Callback]:
        """A callback that ends the run if it fails."""
        return [EndAtError()]

    def end_run(self) -> None:
        """Puts the module into evaluation mode, and torch's generators into the state that they had before the run."""
        self._random.end()
        self.eval()

    @property
    def _processes(self) -> Processes:
        """The processes of the Trainer."""
        return Processes(Share(self.trainer.global_rank, self.trainer.world_size))

    @property
    def _data(self) -> FlowData | None:
        """The data module of the Trainer, if it is one of this package."""
        found: Any = getattr(self.trainer, "datamodule", None)
        return found if isinstance(found, FlowData) else None

    @property
    def _is_resumed(self) -> bool:
        """Whether the run goes on from a checkpoint."""
        return self.trainer.ckpt_path is not None
