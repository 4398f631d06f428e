"""A run of a preset: from data to a folder with the model, the metrics and pictures."""

from __future__ import annotations

import functools
import math
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
from pyro_gflows.spaces import Torus
from pyro_gflows.training import Devices, FitResult, fit, random_elements
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.checkpoint import CHECKPOINT
from pyro_gflows.training.engines.devices import as_devices
from pyro_gflows.training.processes import is_first_process
from pyro_gflows.transforms import GSigmoid

__all__ = ["METRICS", "Outcome", "draw", "finish", "measure", "run", "write_pictures"]

METRICS, _NOISE = "metrics.json", "noise"
_PICTURES = ("density.png", "samples.png", "loss.png", "latent.png")


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Attributes:
        flow: The trained flow.
        result: The report of the training.
        metrics: The figures that ``metrics.json`` holds; empty in all but the first of several processes.
    """

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
    devices: int | str | Devices | None = None,
    started: Callable[[], None] | None = None,
) -> Outcome:
    """Train a flow by a preset, and write the model, a checkpoint and ``metrics.json`` into a folder.

    If the dequantization noise is trained too, it is saved in the folder ``noise`` inside of this folder.

    Args:
        preset: The flow to build and the settings of its training; the seed is also the seed of the first weights.
        data: Events to train on, for validation and for the metrics.
        folder: The folder, which is made if it does not exist.
        resume: Whether to go on from the checkpoint in the folder. Otherwise the files of an earlier run are removed
            before training starts, so that all files in the folder are of one run.
        progress: Whether to show a progress bar.
        device: The device of the training and the metrics.
        devices: The number of devices of the training, or Devices with their kind, by default the one of ``device``.
            Where several processes run this function, the first one alone writes and measures; the others return as
            soon as the training ends, without metrics.
        started: A function that is called before training, when all is ready.

    Raises:
        ImportError: If several devices are asked for, and Lightning is not installed.
        ValueError: If the preset does not suit the data, or if the folder is not writable; before any training.
        TypeError: If the data are of a wrong type; before any training.
    """
    devices = as_devices(devices)
    devices.check(batch_size=preset.settings.batch_size)
    folder, is_first = Path(folder), devices.is_plain or is_first_process()
    if is_first:
        check_writable(folder)
    seed = preset.settings.seed
    action = build_action(preset.group, data.space)
    with random_state_kept(seed=seed):
        flow = build_flow(preset.flow, action, size=_size(preset, data)).to(device)
        dequantizer = _dequantizer(flow.action, data).to(device) if preset.variational else None
    augment = _augmentation(preset, data)
    # The other processes wait for the first one where the training starts, and so nobody reads what is removed here.
    if is_first and not resume:
        _clear(folder)
    if is_first and started is not None:
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
        devices=devices,
        progress=progress,
    )
    if not is_first:
        return Outcome(flow, result, {})
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
        print(f"measuring on {len(data.test):,} test events", file=sys.stderr, flush=True)
    measured = preset.group if preset.group != "C1" else preset.augment or preset.group
    metrics = {**about, **measure(flow, data, group=measured, seed=seed, dequantizer=dequantizer, result=result)}
    write_json(folder / METRICS, metrics)
    return Outcome(flow, result, metrics)


def _clear(folder: Path) -> None:
    """Remove the files that a run writes."""
    places = [folder / name for name in (CHECKPOINT, METRICS, STRUCTURE, WEIGHTS, *_PICTURES)]
    for path in [*places, *(folder / _NOISE / name for name in (STRUCTURE, WEIGHTS))]:
        path.unlink(missing_ok=True)


def finish(
    preset: Preset, data: DataSet, folder: str | Path, *, progress: bool = True, device: torch.device | str = "cpu"
) -> dict[str, Any]:
    """Start, resume or read a run, depending on what the folder holds, and return its metrics.

    Use it in scripts with many runs: the same script goes on after an interruption, and a finished run is only read.
    ``pyro_gflows.load(folder)`` is the trained flow.

    Args:
        preset: The flow to build and the settings of its training.
        data: Events to train on, for validation and for the metrics.
        folder: The folder of the run.
        progress: Whether to show a progress bar.
        device: The device of the training and the metrics.

    Raises:
        ValueError: As :func:`run` does, and if the folder holds the run of another preset or of other data.
        TypeError: As :func:`run` does.
    """
    folder = check_writable(folder)
    if (folder / METRICS).exists():
        metrics = read_json(folder / METRICS)
        if (metrics.get("recipe"), metrics["data"]) == (repr(preset), data.name):
            return metrics
        raise ValueError(
            f"expected {folder} to be empty or to hold a run of this preset, found another preset or other data "
            f"({metrics['preset']} on {metrics['data']}); remove it or take another folder"
        )
    resume = (folder / CHECKPOINT).exists()
    return run(preset, data, folder, resume=resume, progress=progress, device=device).metrics


def _size(preset: Preset, data: DataSet) -> dict[str, Any]:
    """Return the keyword arguments of the family of layers, with the preprocessing."""
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
    act, add_noise = random_elements(build_action(preset.augment, data.space)), data.augment
    return act if add_noise is None else functools.partial(_one_after_the_other, add_noise, act)


def _one_after_the_other(first: Augmentation, second: Augmentation, x: Tensor, generator: torch.Generator) -> Tensor:
    return second(first(x, generator), generator)


def measure(
    flow: EquivariantFlow,
    data: DataSet,
    *,
    group: str,
    seed: int = 0,
    dequantizer: VariationalDequantizer | None = None,
    result: FitResult | None = None,
) -> Mapping[str, Any]:
    """Return figures of a flow on the test events; for images, those of :func:`pyro_gflows.evaluation.image_report`.

    The invariance error is measured on a copy in float64, so that it shows errors of the layers and not of rounding.
    The NLL of dequantized images is that of the test images with the noise that was drawn when they were loaded.

    Args:
        flow: The trained flow.
        data: The data set with the test events.
        group: The name of the group for the invariance error and for averages over a group; "C1" stands for the known
            symmetry of the data.
        seed: The seed of all random draws.
        dequantizer: The trained dequantization noise, or None.
        result: The report of the training, or None.
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
    return build_action(data.symmetry if group == "C1" and data.symmetry else group, data.space)


def draw(flow: EquivariantFlow, n: int, *, seed: int = 0) -> Tensor:
    """Draw samples of a flow, shape (n,) + event_shape; the caller's random state is left as it was.

    Args:
        flow: A flow.
        n: The number of samples.
        seed: The seed of the draw.
    """
    with random_state_kept(flow, seed=seed), torch.no_grad():
        return flow.dist.sample((n,))


def write_pictures(outcome: Outcome, data: DataSet, folder: str | Path) -> None:
    """Write ``density.png``, ``samples.png`` and ``loss.png``, and for images also ``latent.png``.

    Args:
        outcome: The result of a run.
        data: The data set of the run.
        folder: The folder of the pictures.

    Raises:
        ImportError: If matplotlib is not installed.
    """
    folder, flow = Path(folder), outcome.flow
    samples = draw(flow, 2000 if len(data.event_shape) == 1 else 64)
    test = data.test[: len(samples)].to(samples)
    circle = (0.0, 2 * math.pi) if isinstance(data.space, Torus) else None
    if tuple(data.event_shape) == (2,):
        reach = circle or 1.2 * float(test.abs().max())
        plots.plot_density(flow, folder / "density.png", reach=reach, target=data.target)
    else:
        plots.plot_log_probs(log_probs(flow, samples), log_probs(flow, test), folder / "density.png")
    plots.plot_samples(samples, test, folder / "samples.png", scaling=data.scaling, reach=circle)
    if len(data.event_shape) == 3:
        plots.plot_latent_rotations(flow, folder / "latent.png", scaling=data.scaling)
    floor = None if data.target is None else data.target.floor
    plots.plot_loss(outcome.result.train_curve, outcome.result.validation_curve, folder / "loss.png", floor=floor)
