"""The training loop: seeds, progress bar, callbacks, checkpoints, interruption and resuming."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pyro_gflows.datasets.processes import on_all, on_first
from pyro_gflows.deprecation import renamed_attributes
from pyro_gflows.evaluation.estimation_error import LogDetError
from pyro_gflows.numerics.random_state import random_state_kept, seed_of_rank
from pyro_gflows.serialization.files import check_writable
from pyro_gflows.training.callbacks import Callback, ask
from pyro_gflows.training.checkpoint import CHECKPOINT, read_checkpoint
from pyro_gflows.training.engines.base import Engine
from pyro_gflows.training.interrupt import DeferredInterrupt
from pyro_gflows.training.objectives.base import FitDiverged
from pyro_gflows.training.settings import FitSettings
from pyro_gflows.training.trainer import Trainer

__all__ = ["FitResult", "Watch", "run"]

_STEPS_BETWEEN_QUESTIONS = 10  # to the other processes, whether one of them is interrupted


@dataclass(frozen=True)
class Watch:
    """The observers of a run: callbacks and a progress bar.

    Attributes:
        flow: The flow that is passed to the callbacks.
        callbacks: The functions that are called after every step.
        show: The name of the loss in the progress bar; if it is empty, there is no progress bar.
    """

    flow: Any
    callbacks: Sequence[Callback] = ()
    show: str = ""


@renamed_attributes(held_out_nll="validation_nll", held_out_curve="validation_curve")
@dataclass(frozen=True)
class FitResult:
    """The steps, time and losses of a run; the trained flow is changed in place and is in evaluation mode.

    Attributes:
        steps: The number of optimizer steps that are done; fewer than in the settings after an early stop.
        seconds: The time spent on these steps, over all parts of a resumed run.
        validation_nll: The NLL of the validation data under the final weights, in nats; None without validation data.
        stopped_early: Whether early stopping or a callback ended the run.
        train_curve: Pairs (step, training loss).
        validation_curve: Pairs (step, validation loss).
        log_det_error: The error of the validation losses if layers estimate their log-det; None without validation
            data.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction, fit
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> result = fit(flow, torch.randn(100, 2), settings=FitSettings(steps=3), progress=False)
        >>> result.steps, result.stopped_early, [step for step, loss in result.train_curve]
        (3, False, [1, 2, 3])
    """

    steps: int
    seconds: float
    validation_nll: float | None
    stopped_early: bool
    train_curve: list[tuple[int, float]]
    validation_curve: list[tuple[int, float]]
    log_det_error: LogDetError | None = None

    def __repr__(self) -> str:
        nll = "none" if self.validation_nll is None else f"{self.validation_nll:.4f}"
        stopped = ", stopped early" if self.stopped_early else ""
        return f"FitResult({self.steps} steps in {self.seconds:.1f} s, validation NLL: {nll}{stopped})"


def run(
    make: Callable[[Engine], Trainer],
    *,
    engine: Engine,
    settings: FitSettings,
    device: torch.device,
    identity: Callable[[], dict[str, Any]],
    folder: str | Path | None,
    resume: bool,
    watch: Watch,
) -> FitResult:
    """Makes a trainer and trains to the end.

    Args:
        make: A function of the engine that makes the trainer, called after torch's generators are seeded.
        engine: The devices of the run.
        settings: The settings of the trainer.
        device: The device of the weights.
        identity: A function that returns the properties that a resumed run must share; called if there is a folder.
        folder: The folder for checkpoints; None writes no checkpoints.
        resume: Whether to continue from the folder's checkpoint.
        watch: The callbacks and the progress bar.

    Raises:
        ValueError: The processes have different data or flows, the folder is not writable, or the checkpoint is
            missing, unreadable or from another run.
        FitDiverged: The loss is NaN or has diverged; the weights are then those of the last good checkpoint.
    """
    if resume and folder is None:
        raise ValueError("expected a folder to resume from, got resume=True with folder=None")
    place = None if folder is None else on_first(engine, lambda: check_writable(folder))
    known = {} if place is None and engine.share.size == 1 else identity()
    identities = engine.gather(known)
    on_all(engine, lambda: _check_alike(identities))
    seed = seed_of_rank(settings.seed, engine.share.rank)
    with random_state_kept(device, seed=seed), DeferredInterrupt() as interrupt:
        trainer = make(engine)
        if resume and place is not None:
            trainer.resume(on_first(engine, lambda: read_checkpoint(place, known)))
        else:
            trainer.start()
        stopped = _steps(trainer, known, place, interrupt=interrupt, watch=watch)
        validation_nll = trainer.finish()
    now = trainer.progress
    return FitResult(now.step, now.seconds, validation_nll, stopped, now.train_curve, now.validation_curve)


def _check_alike(identities: Sequence[dict[str, Any]]) -> None:
    """Raises a ValueError if the processes would train different flows, or on different data."""
    for rank, other in enumerate(identities):
        for name, value in other.items():
            if value != identities[0].get(name):
                first = identities[0].get(name)
                raise ValueError(
                    f"expected the same {name} in all processes, but process {rank} has {str(value)[:200]} and process "
                    f"0 has {str(first)[:200]}; each process runs the whole script, so seed what it draws, or read it "
                    "from a file"
                )


def _asked(trainer: Trainer, loss: float, interrupt: DeferredInterrupt, watch: Watch) -> tuple[bool, bool]:
    """Whether a callback stops the run, and whether it is interrupted, which all processes have to do together.

    The callbacks are called in the first process. Without any, other processes are asked only after some steps.
    """
    step, is_first = trainer.progress.step, trainer.engine.share.rank == 0
    asked = is_first and ask(watch.callbacks, step, trainer.losses(loss), watch.flow, device=trainer.device)
    if not watch.callbacks and trainer.engine.share.size > 1 and step % _STEPS_BETWEEN_QUESTIONS:
        return False, False
    asked, interrupted = trainer.asked(asked, interrupt.requested)
    return asked, interrupted


def _steps(
    trainer: Trainer, identity: dict[str, Any], place: Path | None, *, interrupt: DeferredInterrupt, watch: Watch
) -> bool:
    """Trains to the end, with checkpoints, and returns whether the run stopped early."""
    settings, now = trainer.settings, trainer.progress
    is_first = trainer.engine.share.rank == 0
    show, place = (watch.show, place) if is_first else ("", None)
    good = trainer.snapshot(identity)
    if place is not None:
        good.write(place)
    with tqdm(total=settings.steps, initial=now.step, disable=not show, desc="fit", unit="step") as bar:
        while now.step < settings.steps and not trainer.out_of_patience and not now.stopped:
            try:
                loss = trainer.step()
            except FitDiverged as error:
                trainer.restore(good)
                kept = f"; the checkpoint of step {good.progress.step} is kept in {place / CHECKPOINT}" if place else ""
                raise FitDiverged(f"{error}{kept}") from None
            bar.update()
            if show and now.step % 10 == 0:
                rate = trainer.batch_size * now.step / now.seconds
                bar.set_postfix_str(f"{show} {loss:.3f}, {rate:,.0f} events/s", refresh=False)
            asked, interrupted = _asked(trainer, loss, interrupt, watch)
            now.stopped = now.step < settings.steps and (asked or trainer.out_of_patience)
            last = now.step == settings.steps or now.stopped or interrupted
            if last or now.step % settings.checkpoint_every == 0:
                good = trainer.snapshot(identity)
                if place is not None:
                    good.write(place)
            if interrupted:
                raise KeyboardInterrupt(f"stopped after step {now.step}")
    return now.step < settings.steps
