"""Maximum likelihood: Pyro's loss, one torch optimizer, and runs that can be stopped and taken up again."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyro
import torch
from torch import Tensor
from tqdm import tqdm

from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.infer.augment import Augmentation
from pyro_gflows.infer.batches import Sampler, fingerprint
from pyro_gflows.infer.checkpoint import CHECKPOINT, read_checkpoint
from pyro_gflows.infer.data import check_data
from pyro_gflows.infer.interrupt import DeferredInterrupt
from pyro_gflows.infer.settings import FitSettings
from pyro_gflows.infer.storage import check_writable
from pyro_gflows.infer.trainer import FitDiverged, Trainer

__all__ = ["FitDiverged", "FitResult", "fit"]


@dataclass(frozen=True)
class FitResult:
    """What a run gave; the trained flow itself is the one that was handed in, now in evaluation mode.

    Attributes:
        steps: Optimizer steps done (fewer than asked for after an early stop).
        seconds: Time spent on them, over all resumed parts.
        held_out_nll: Held-out NLL in nats of the returned weights, or None without validation data.
        stopped_early: Whether patience ran out.
        train_curve, held_out_curve: Pairs (step, NLL).
    """

    steps: int
    seconds: float
    held_out_nll: float | None
    stopped_early: bool
    train_curve: list[tuple[int, float]]
    held_out_curve: list[tuple[int, float]]


def fit(
    flow: EquivariantFlow,
    data: Tensor | np.ndarray | Sampler,
    *,
    settings: FitSettings | None = None,
    validation: Tensor | None = None,
    augment: Augmentation | None = None,
    folder: str | Path | None = None,
    resume: bool = False,
    progress: bool = True,
) -> FitResult:
    """Fit a flow to data by maximum likelihood, in place.

    Minimises -E log p(x) with Pyro's ``Trace_ELBO().differentiable_loss`` and one torch optimizer, so that gradient
    clipping is over all parameters together. Starts with ``flow.initialize`` on the first batch. All randomness comes
    from the seed of the settings; the caller's generators and parameter store are left as they were. With a ``folder``,
    a checkpoint is replaced atomically every so often; a run that was killed and resumed ends, on the CPU and with the
    same number of threads, in exactly the weights of an unbroken one. Ctrl-C finishes the step, leaves a checkpoint and
    then raises ``KeyboardInterrupt``.

    Args:
        flow: The flow; its device and dtype are used.
        data: Events, shape (rows,) + event_shape, or a sampler ``(n, generator) -> events`` called at every step, such
            as an exact :class:`~pyro_gflows.datasets.Density`.
        settings: Steps, batch size, seed, optimizer, schedule and so on (default: ``FitSettings()``).
        validation: Held-out events, for early stopping and the reported NLL.
        augment: Called as ``augment(x, generator)`` on every batch.
        folder: Where checkpoints go; None keeps none.
        resume: Go on from the folder's checkpoint.
        progress: Show a progress bar with NLL and throughput.

    Raises:
        ValueError: A flow without weights, data of the wrong shape or not finite, a folder that is not writable, a
            checkpoint that is missing, unreadable or of another run; all before any training.
        TypeError: Data that are not floating-point, or arguments of another kind.
        FitDiverged: NaN or a diverged loss; the flow is put back to the last good snapshot, which stays on disk too.

    Example:
        >>> from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction
        >>> from pyro_gflows.datasets import density
        >>> from pyro_gflows.transforms import g_radial
        >>> action = VectorAction.plane("O(2)")
        >>> flow = EquivariantFlow(InvariantNormal(action), [g_radial(action)])
        >>> fit(flow, density("rings"), settings=FitSettings(steps=3), progress=False).steps
        3
    """
    if not isinstance(flow, EquivariantFlow):
        raise TypeError(f"expected an EquivariantFlow, got {type(flow).__name__}")
    like = next(flow.parameters(), None)
    if like is None:
        raise ValueError(f"expected a flow with weights to fit, got none in {flow}")
    settings = settings or FitSettings()
    if not isinstance(settings, FitSettings):
        raise TypeError(f"expected settings=FitSettings(...), got {type(settings).__name__}")
    if resume and folder is None:
        raise ValueError("expected a folder to resume from, got resume=True with folder=None")
    if settings.held_out.patience is not None and validation is None:
        raise ValueError("early stopping needs held-out data: give validation=..., or HeldOut(patience=None)")
    place = None if folder is None else check_writable(folder)
    shape = flow.action.event_shape
    if not callable(data):
        data = check_data(data, event_shape=shape, source="data").to(like)
    if validation is not None:
        validation = check_data(validation, event_shape=shape, source="validation").to(like)

    devices = [like.device] if like.device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), pyro.get_param_store().scope(), DeferredInterrupt() as interrupt:
        torch.manual_seed(settings.seed)
        trainer = Trainer(flow, data, settings=settings, augment=augment, validation=validation)
        identity = _identity(flow, data, settings, validation)
        if resume and place is not None:
            trainer.restore(read_checkpoint(place, identity))
        else:
            trainer.start()
        stopped = _run(trainer, identity, place, interrupt=interrupt, show=progress)
        held_out_nll = trainer.finish()
    return FitResult(
        steps=trainer.progress.step,
        seconds=trainer.progress.seconds,
        held_out_nll=held_out_nll,
        stopped_early=stopped,
        train_curve=trainer.progress.train_curve,
        held_out_curve=trainer.progress.held_out_curve,
    )


def _run(
    trainer: Trainer, identity: dict[str, Any], place: Path | None, *, interrupt: DeferredInterrupt, show: bool
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
                bar.set_postfix_str(f"nll {loss:.3f}, {rate:,.0f} events/s", refresh=False)
            last = now.step == settings.steps or trainer.out_of_patience or interrupt.requested
            if last or now.step % settings.checkpoint_every == 0:
                good = trainer.snapshot(identity)
                if place is not None:
                    good.write(place)
            if interrupt.requested:
                raise KeyboardInterrupt(f"stopped after step {now.step}")
    return now.step < settings.steps


def _identity(
    flow: EquivariantFlow, data: Tensor | Sampler, settings: FitSettings, validation: Tensor | None
) -> dict[str, Any]:
    try:
        structure = flow.config()
    except TypeError:
        # A user's own unregistered class cannot be described; names and shapes of its weights still tell flows apart.
        structure = {name: list(tensor.shape) for name, tensor in flow.state_dict().items()}
    plain = {field.name: repr(getattr(settings, field.name)) for field in dataclasses.fields(settings)}
    held_out = None if validation is None else fingerprint(validation)
    return {"settings": plain, "flow": structure, "data": fingerprint(data), "validation": held_out}
