"""A whole run of training: seeded, shown, interruptible, and taken up where it stopped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from pyro_gflows.deprecation import renamed_attributes
from pyro_gflows.evaluation.estimation_error import LogDetError
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.serialization.files import check_writable
from pyro_gflows.training.callbacks import Callback, ask
from pyro_gflows.training.checkpoint import CHECKPOINT, read_checkpoint
from pyro_gflows.training.interrupt import DeferredInterrupt
from pyro_gflows.training.objectives.base import FitDiverged
from pyro_gflows.training.processes import require_one_process
from pyro_gflows.training.settings import FitSettings
from pyro_gflows.training.trainer import Trainer

__all__ = ["FitResult", "Watch", "run"]


@dataclass(frozen=True)
class Watch:
    """Who sees a run while it goes on.

    Attributes:
        flow: What the callbacks are given.
        callbacks: Called after every step.
        show: What the progress bar calls the loss; "" shows none.
    """

    flow: Any
    callbacks: Sequence[Callback] = ()
    show: str = ""


@renamed_attributes(held_out_nll="validation_nll", held_out_curve="validation_curve")
@dataclass(frozen=True)
class FitResult:
    """What a run gave; the trained flow itself is the one that was handed in, now in evaluation mode.

    Attributes:
        steps: Optimizer steps done (fewer than asked for after an early stop).
        seconds: Time spent on them, over all resumed parts.
        validation_nll: Held-out NLL in nats of the returned weights, or None without validation data.
        stopped_early: Whether patience ran out, or a callback stopped the run.
        train_curve, validation_curve: Pairs (step, loss).
        log_det_error: Of ``validation_nll`` and ``validation_curve``, where layers estimate their log-det; None without
            validation data.
    """

    steps: int
    seconds: float
    validation_nll: float | None
    stopped_early: bool
    train_curve: list[tuple[int, float]]
    validation_curve: list[tuple[int, float]]
    log_det_error: LogDetError | None = None


def run(
    make: Callable[[], Trainer],
    *,
    settings: FitSettings,
    device: torch.device,
    identity: Callable[[], dict[str, Any]],
    folder: str | Path | None,
    resume: bool,
    watch: Watch,
) -> FitResult:
    """Make a trainer and train to the end.

    Args:
        make: Makes the trainer; called once torch's generators are seeded.
        settings: Those of the trainer.
        device: Where it computes.
        identity: Gives what must be the same for a resumed run; called if there is a folder.
        folder: Where checkpoints go; None keeps none.
        resume: Go on from the folder's checkpoint.
        watch: Who sees the run.

    Raises:
        RuntimeError: This is one of several processes, as torchrun starts them.
        ValueError: A folder that is not writable, a checkpoint that is missing, unreadable or of another run.
        FitDiverged: NaN or a diverged loss; the weights are put back to the last good snapshot, which stays on disk.
    """
    require_one_process()
    if resume and folder is None:
        raise ValueError("expected a folder to resume from, got resume=True with folder=None")
    place = None if folder is None else check_writable(folder)
    known = {} if place is None else identity()
    with random_state_kept(device, seed=settings.seed), DeferredInterrupt() as interrupt:
        trainer = make()
        if resume and place is not None:
            trainer.resume(read_checkpoint(place, known))
        else:
            trainer.start()
        stopped = _steps(trainer, known, place, interrupt=interrupt, watch=watch)
        validation_nll = trainer.finish()
    now = trainer.progress
    return FitResult(now.step, now.seconds, validation_nll, stopped, now.train_curve, now.validation_curve)


def _steps(
    trainer: Trainer, identity: dict[str, Any], place: Path | None, *, interrupt: DeferredInterrupt, watch: Watch
) -> bool:
    """Train to the end, with snapshots; whether it stopped early."""
    settings, now, show = trainer.settings, trainer.progress, watch.show
    good = trainer.snapshot(identity)
    if place is not None:
        good.write(place)
    with tqdm(total=settings.steps, initial=now.step, disable=not show, desc="fit", unit="step") as bar:
        while now.step < settings.steps and not trainer.out_of_patience and not now.stopped:
            try:
                loss = trainer.step()
            except FitDiverged as error:
                trainer.restore(good)
                kept = f"; the checkpoint of step {good.progress.step} is in {place / CHECKPOINT}" if place else ""
                raise FitDiverged(f"{error}{kept}") from None
            bar.update()
            if show and now.step % 10 == 0:
                rate = trainer.batch_size * now.step / now.seconds
                bar.set_postfix_str(f"{show} {loss:.3f}, {rate:,.0f} events/s", refresh=False)
            asked = ask(watch.callbacks, now.step, trainer.losses(loss), watch.flow, device=trainer.device)
            now.stopped = now.step < settings.steps and (asked or trainer.out_of_patience)
            last = now.step == settings.steps or now.stopped or interrupt.requested
            if last or now.step % settings.checkpoint_every == 0:
                good = trainer.snapshot(identity)
                if place is not None:
                    good.write(place)
            if interrupt.requested:
                raise KeyboardInterrupt(f"stopped after step {now.step}")
    return now.step < settings.steps
