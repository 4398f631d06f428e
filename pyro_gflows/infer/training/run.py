"""A whole run of training: seeded, shown, interruptible, and taken up where it stopped."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from tqdm import tqdm

from pyro_gflows.infer.log_det_error import LogDetError
from pyro_gflows.infer.training.checkpoint import CHECKPOINT, read_checkpoint
from pyro_gflows.infer.training.interrupt import DeferredInterrupt
from pyro_gflows.infer.training.processes import require_one_process
from pyro_gflows.infer.training.settings import FitSettings
from pyro_gflows.infer.training.storage import check_writable
from pyro_gflows.infer.training.trainer import FitDiverged, Trainer

__all__ = ["FitResult", "run", "run_identity"]


@dataclass(frozen=True)
class FitResult:
    """What a run gave; the trained flow itself is the one that was handed in, now in evaluation mode.

    Attributes:
        steps: Optimizer steps done (fewer than asked for after an early stop).
        seconds: Time spent on them, over all resumed parts.
        held_out_nll: Held-out NLL in nats of the returned weights, or None without validation data.
        stopped_early: Whether patience ran out.
        train_curve, held_out_curve: Pairs (step, loss).
        log_det_error: Of ``held_out_nll`` and ``held_out_curve``, where layers estimate their log-det; None without
            validation data.
    """

    steps: int
    seconds: float
    held_out_nll: float | None
    stopped_early: bool
    train_curve: list[tuple[int, float]]
    held_out_curve: list[tuple[int, float]]
    log_det_error: LogDetError | None = None


def run(
    make: Callable[[], Trainer],
    *,
    settings: FitSettings,
    device: torch.device,
    identity: dict[str, Any],
    folder: str | Path | None,
    resume: bool,
    show: str,
) -> FitResult:
    """Make a trainer and train to the end.

    Args:
        make: Makes the trainer; called once torch's generators are seeded.
        settings: Those of the trainer.
        device: Where it computes.
        identity: What must be the same for a resumed run.
        folder: Where checkpoints go; None keeps none.
        resume: Go on from the folder's checkpoint.
        show: What the progress bar calls the loss; "" shows none.

    Raises:
        RuntimeError: This is one of several processes, as torchrun starts them.
        ValueError: A folder that is not writable, a checkpoint that is missing, unreadable or of another run.
        FitDiverged: NaN or a diverged loss; the weights are put back to the last good snapshot, which stays on disk.
    """
    require_one_process()
    if resume and folder is None:
        raise ValueError("expected a folder to resume from, got resume=True with folder=None")
    place = None if folder is None else check_writable(folder)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), DeferredInterrupt() as interrupt:
        torch.manual_seed(settings.seed)
        trainer = make()
        if resume and place is not None:
            trainer.restore(read_checkpoint(place, identity))
        else:
            trainer.start()
        stopped = _steps(trainer, identity, place, interrupt=interrupt, show=show)
        held_out_nll = trainer.finish()
    now = trainer.progress
    return FitResult(now.step, now.seconds, held_out_nll, stopped, now.train_curve, now.held_out_curve)


def _steps(
    trainer: Trainer, identity: dict[str, Any], place: Path | None, *, interrupt: DeferredInterrupt, show: str
) -> bool:
    """Train to the end, with snapshots; whether it stopped early."""
    settings, now = trainer.settings, trainer.progress
    good = trainer.snapshot(identity)
    if place is not None:
        good.write(place)
    with tqdm(total=settings.steps, initial=now.step, disable=not show, desc="fit", unit="step") as bar:
        while now.step < settings.steps and not trainer.out_of_patience:
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
            last = now.step == settings.steps or trainer.out_of_patience or interrupt.requested
            if last or now.step % settings.checkpoint_every == 0:
                good = trainer.snapshot(identity)
                if place is not None:
                    good.write(place)
            if interrupt.requested:
                raise KeyboardInterrupt(f"stopped after step {now.step}")
    return now.step < settings.steps


def run_identity(module: nn.Module, settings: FitSettings, **others: Any) -> dict[str, Any]:
    """What makes two runs the same one: structure of the flow, settings, and what else the kind of run depends on."""
    try:
        structure = module.config()  # type: ignore[operator]
    except (AttributeError, TypeError):
        # What cannot be described (a user's own unregistered class, say) is told apart by names and shapes of weights.
        # A flag says what was done so far, not what the flow is.
        weights = {name: tensor for name, tensor in module.state_dict().items() if tensor.dtype != torch.bool}
        structure = {name: list(tensor.shape) for name, tensor in weights.items()}
    decisive = [field.name for field in dataclasses.fields(settings) if field.name != "check_symmetry"]
    plain = {name: repr(getattr(settings, name)) for name in decisive}
    return {"settings": plain, "flow": structure, **others}
