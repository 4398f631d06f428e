"""A run of a preset: from data to a folder with the model, the metrics and pictures."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import Action, ImageAction
from pyro_gflows.datasets import DataSet
from pyro_gflows.experiments.measuring import draw, measure
from pyro_gflows.experiments.pictures import PICTURES, write_pictures
from pyro_gflows.experiments.presets import ByEnergy, Preset
from pyro_gflows.flows import VariationalDequantizer, g_dequantizer
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.families import build_action, build_flow
from pyro_gflows.flows.placement import to_train
from pyro_gflows.numerics.random_state import random_state_kept
from pyro_gflows.serialization import save
from pyro_gflows.serialization.files import check_writable, read_json, write_json
from pyro_gflows.serialization.saving import STRUCTURE, WEIGHTS
from pyro_gflows.targets import ParticleTarget
from pyro_gflows.training import Devices, FitResult, fit, fit_energy, random_elements
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.checkpoint import CHECKPOINT
from pyro_gflows.training.engines.devices import as_devices
from pyro_gflows.training.processes import is_first_process
from pyro_gflows.transforms import GSigmoid

__all__ = ["METRICS", "Outcome", "draw", "finish", "measure", "run", "write_pictures"]

METRICS, _NOISE = "metrics.json", "noise"
_CENTERS = 2  # over which the bound of a placement flow sums in training


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
    train = _training(preset, data, dequantizer)
    # The other processes wait for the first one where the training starts, and so nobody reads what is removed here.
    if is_first and not resume:
        _clear(folder)
    if is_first and started is not None:
        started()
    trained = to_train(flow, centers=_CENTERS if preset.by_energy is None else None)
    result = train(trained, settings=preset.settings, folder=folder, resume=resume, devices=devices, progress=progress)
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
        "by": "likelihood" if preset.by_energy is None else "energy",
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
    places = [folder / name for name in (CHECKPOINT, METRICS, STRUCTURE, WEIGHTS, *PICTURES)]
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


def _training(preset: Preset, data: DataSet, dequantizer: VariationalDequantizer | None) -> Callable[..., FitResult]:
    """The training of a preset on data, but for the flow and where it runs."""
    if preset.by_energy is not None:
        return functools.partial(_by_energy, how=preset.by_energy, data=data)
    augment = _augmentation(preset, data)
    return functools.partial(fit, data=data.train, validation=data.validation, augment=augment, dequantize=dequantizer)


def _by_energy(flow: EquivariantFlow, *, how: ByEnergy, data: DataSet, **options: Any) -> FitResult:
    target = data.target
    if not isinstance(target, ParticleTarget):
        raise ValueError(f"expected particles with a known energy for a training by energy, got {data.name}")
    like = next(flow.parameters())
    with random_state_kept(flow, seed=0):  # the scales of the layers are set from draws as wide as the sampler starts
        start = target.sampler.scale * torch.randn(1000, *target.event_shape).to(like)
    flow.initialize(target.space.project(start))
    density = target if how.above is None else target.softened(above=how.above)
    result = fit_energy(flow, density, annealing=how.annealing, **options).run
    assert result is not None
    return result


def _augmentation(preset: Preset, data: DataSet) -> Augmentation | None:
    if not preset.augment:
        return data.augment
    act, add_noise = random_elements(build_action(preset.augment, data.space)), data.augment
    return act if add_noise is None else functools.partial(_one_after_the_other, add_noise, act)


def _one_after_the_other(first: Augmentation, second: Augmentation, x: Tensor, generator: torch.Generator) -> Tensor:
    return second(first(x, generator), generator)
