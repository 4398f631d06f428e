"""One fit from data to files: model, metrics and pictures in one folder."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_gflows import plots
from pyro_gflows.actions import Action, ImageAction
from pyro_gflows.datasets import DataSet
from pyro_gflows.evaluation import image_report, invariance_report, log_det_error, log_probs, mean_and_error
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.flows import VariationalDequantizer, g_dequantizer
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.families import build_action, build_flow
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.serialization import save
from pyro_gflows.serialization.files import check_writable, read_json, write_json
from pyro_gflows.serialization.saving import STRUCTURE, WEIGHTS
from pyro_gflows.training import FitResult, fit, random_elements
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.checkpoint import CHECKPOINT
from pyro_gflows.transforms import GSigmoid

__all__ = ["METRICS", "Outcome", "draw", "finish", "measure", "run", "write_pictures"]

METRICS, _NOISE = "metrics.json", "noise"
_PICTURES = ("density.png", "samples.png", "loss.png", "latent.png")


@dataclass(frozen=True)
class Outcome:
    """A trained flow and the figures that ``metrics.json`` holds."""

    flow: EquivariantFlow
    result: FitResult
    metrics: dict[str, Any]


def run(
    preset: Preset,
    data: DataSet,
    folder: str | Path,
    *,
    resume: bool = False,
    progress: bool = True,
    device: torch.device | str = "cpu",
    started: Callable[[], None] | None = None,
) -> Outcome:
    """Train a recipe on a data set and write model, checkpoint and ``metrics.json`` into a folder.

    Noise that is trained is saved in the folder ``noise`` inside.

    Args:
        preset: What to build and how to train it; its seed also starts the weights.
        data: Training and held-out events.
        folder: Made if needed.
        resume: Go on from the folder's checkpoint. Without it, what an earlier run left in the folder is removed before
            training starts, so that nothing in it is of another run than the rest.
        progress: Show a progress bar.
        device: Where to train and measure.
        started: Called once all is ready, before training.

    Raises:
        ValueError, TypeError: The recipe does not fit the data, or the folder is not writable; before any training.
    """
    folder = check_writable(folder)
    seed = preset.settings.seed
    action = build_action(preset.group, data.event_shape)
    with random_state_kept(seed=seed):
        flow = build_flow(preset.flow, action, size=_size(preset, data)).to(device)
        dequantizer = _dequantizer(flow.action, data).to(device) if preset.variational else None
    augment = _augmentation(preset, data)
    if not resume:
        _clear(folder)
    if started is not None:
        started()
    result = fit(
        flow,
        data.train,
        settings=preset.settings,
        validation=data.validation,
        augment=augment,
        dequantize=dequantizer,
        folder=folder,
        resume=resume,
        progress=progress,
    )
    save(flow, folder)
    if dequantizer is not None:
        save(dequantizer.noise, folder / _NOISE)
    about = {
        "data": data.name,
        "group": preset.group,
        "flow": preset.flow,
        "preset": preset.name,
        "shortened": preset.shortened,
        "augment": preset.augment,
        "dequantization": None if data.scaling is None else "variational" if preset.variational else "uniform",
        "seed": seed,
        "steps": result.steps,
        "batch_size": preset.settings.batch_size,
        "parameters": sum(p.numel() for p in flow.parameters() if p.requires_grad),
        "seconds": round(result.seconds, 2),
        "validation_curve": [list(pair) for pair in result.validation_curve],
        "recipe": repr(preset),
    }
    if progress:  # many large images take minutes on a CPU
        print(f"measuring on {len(data.test):,} held-out events", file=sys.stderr, flush=True)
    measured = preset.group if preset.group != "C1" else preset.augment or preset.group
    metrics = {**about, **measure(flow, data, group=measured, seed=seed, dequantizer=dequantizer, result=result)}
    write_json(folder / METRICS, metrics)
    return Outcome(flow, result, metrics)


def _clear(folder: Path) -> None:
    """Remove what a run writes."""
    places = [folder / name for name in (CHECKPOINT, METRICS, STRUCTURE, WEIGHTS, *_PICTURES)]
    for path in [*places, *(folder / _NOISE / name for name in (STRUCTURE, WEIGHTS))]:
        path.unlink(missing_ok=True)


def finish(
    preset: Preset, data: DataSet, folder: str | Path, *, progress: bool = True, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """The metrics of a recipe, whatever of the work is done: nothing, a part (a checkpoint is there), or all.

    A killed experiment is so taken up by the same command. The trained flow is ``infer.load(folder)``.

    Raises:
        ValueError, TypeError: As :func:`run`; or the folder holds the run of another recipe or of other data.
    """
    folder = check_writable(folder)
    if (folder / METRICS).exists():
        metrics = read_json(folder / METRICS)
        if (metrics.get("recipe"), metrics["data"]) == (repr(preset), data.name):
            return metrics
        raise ValueError(
            f"expected {folder} to be empty or of this recipe, found another one or other data ({metrics['preset']} on "
            f"{metrics['data']}); remove it or take another folder"
        )
    resume = (folder / CHECKPOINT).exists()
    return run(preset, data, folder, resume=resume, progress=progress, device=device).metrics


def _size(preset: Preset, data: DataSet) -> dict[str, Any]:
    """The keywords of the family, with the preprocessing."""
    if preset.logit is None:
        return dict(preset.size)
    if data.scaling is None:
        raise ValueError(f"expected images of gray levels for logit preprocessing, got {data.name}")
    make = functools.partial(GSigmoid, interval=data.scaling.interval(), alpha=preset.logit)
    return {**preset.size, "preprocess": make}


def _dequantizer(action: Action, data: DataSet) -> VariationalDequantizer:
    if data.scaling is None or not isinstance(action, ImageAction):
        raise ValueError(f"expected images of gray levels for variational dequantization, got {data.name}")
    return g_dequantizer(action, data.scaling)


def _augmentation(preset: Preset, data: DataSet) -> Augmentation | None:
    if not preset.augment:
        return data.augment
    move, refresh = random_elements(build_action(preset.augment, data.event_shape)), data.augment
    return move if refresh is None else lambda x, generator: move(refresh(x, generator), generator)


def measure(
    flow: EquivariantFlow,
    data: DataSet,
    *,
    group: str,
    seed: int = 0,
    dequantizer: VariationalDequantizer | None = None,
    result: FitResult | None = None,
) -> Mapping[str, Any]:
    """Held-out figures of a flow; of images, those of :func:`pyro_gflows.evaluation.image_report`.

    Invariance and group averages are over ``group``; for "C1", over the group that the data are known to have. The
    invariance error is measured on a float64 copy: the structure's, not the rounding's. The NLL is that of the data
    with the noise that they have.
    """
    test = data.test.to(next(flow.parameters()))
    scores = log_probs(flow, test).double()
    figures: dict[str, Any] = {"nll": -float(scores.mean())}
    if data.target is not None:
        figures["floor"] = data.target.floor
        difference = data.target.log_prob(test.double()) - scores
        figures["gap"], figures["gap_standard_error"] = mean_and_error(difference)
    action = _measured_action(flow, data, group)
    if data.scaling is not None:
        about = image_report(flow, test, data.scaling, action=action, dequantizer=dequantizer, result=result, seed=seed)
        return {**figures, **about.known()}
    if not (estimated := log_det_error(flow, test)).is_exact:
        figures["log_det_standard_error"] = estimated.standard_error
        figures["log_det_truncation"] = estimated.truncation
    errors = invariance_report(flow, test, action, generator=torch.Generator().manual_seed(seed))
    figures["invariance_error"], figures["mean_invariance_error"] = errors.worst, errors.mean
    return {**figures, "invariance_group": str(action.group)}


def _measured_action(flow: EquivariantFlow, data: DataSet, group: str) -> Action:
    if group == str(flow.action.group) and (group != "C1" or data.symmetry is None):
        return flow.action
    return build_action(data.symmetry if group == "C1" and data.symmetry else group, data.event_shape)


def draw(flow: EquivariantFlow, n: int, *, seed: int = 0) -> Tensor:
    """Samples of a flow, shape (n,) + event_shape; the caller's random state is left as it was."""
    with random_state_kept(flow, seed=seed), torch.no_grad():
        return flow.dist.sample((n,))


def write_pictures(outcome: Outcome, data: DataSet, folder: str | Path) -> None:
    """Write ``density.png``, ``samples.png`` and ``loss.png``; of images, ``latent.png`` as well.

    Raises:
        ImportError: matplotlib is not installed.
    """
    folder, flow = Path(folder), outcome.flow
    samples = draw(flow, 2000 if len(data.event_shape) == 1 else 64)
    test = data.test[: len(samples)].to(samples)
    if tuple(data.event_shape) == (2,):
        reach = 1.2 * float(test.abs().max())
        plots.plot_density(flow, folder / "density.png", reach=reach, target=data.target)
    else:
        plots.plot_log_probs(log_probs(flow, samples), log_probs(flow, test), folder / "density.png")
    plots.plot_samples(samples, test, folder / "samples.png", scaling=data.scaling)
    if len(data.event_shape) == 3:
        plots.plot_latent_rotations(flow, folder / "latent.png", scaling=data.scaling)
    floor = None if data.target is None else data.target.floor
    plots.plot_loss(outcome.result.train_curve, outcome.result.validation_curve, folder / "loss.png", floor=floor)
