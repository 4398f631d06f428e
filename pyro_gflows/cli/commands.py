"""The commands ``fit``, ``sample``, ``score`` and ``check``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch

from pyro_gflows.cli.devices import check_devices, devices_of, reporting
from pyro_gflows.cli.folders import RunFolder
from pyro_gflows.cli.recipes import options_of, read_data, recipe, unsuitable
from pyro_gflows.datasets import DataSet, EventFormat, check_data, is_file_name, load_data, read_array
from pyro_gflows.evaluation import log_det_error, log_probs
from pyro_gflows.experiments import runs as experiments
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.families import UnsuitableFamily
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_invariant, assert_log_det
from pyro_gflows.training import Devices, FitDiverged

__all__ = ["check", "fit", "sample", "score"]

_CHECKED_EVENTS = 4


def fit(arguments: argparse.Namespace) -> int:
    """Fit a flow, and write the model, the metrics and the pictures.

    On several devices the command may run in several processes, of which the first one alone prints and writes.
    """
    devices = devices_of(arguments)
    with reporting(devices, quiet=arguments.quiet) as is_first:
        return _fit(arguments, devices, is_first=is_first)


def _fit(arguments: argparse.Namespace, devices: Devices, *, is_first: bool) -> int:
    folder, goes_on = RunFolder(Path(arguments.out)), arguments.resume or arguments.more_steps is not None
    if goes_on and arguments.overwrite:
        raise ValueError("expected --resume or --more-steps, which go on, or --overwrite, which starts anew, got both")
    if not goes_on:  # checked first, since it may take minutes to read the data
        folder.check_free(overwrite=arguments.overwrite)
    data = read_data(arguments)
    preset = recipe(arguments, data)
    options = options_of(arguments, preset)
    if goes_on:
        folder.check_resumable(options)
    check_devices(devices, batch_size=preset.settings.batch_size)
    if is_first:
        print(_announcement(preset, data), flush=True)
    try:
        outcome = experiments.run(
            preset,
            data,
            arguments.out,
            resume=goes_on,
            progress=not arguments.quiet,
            devices=devices,
            started=partial(folder.begin, options, data.format),
        )
    except UnsuitableFamily as error:
        raise unsuitable(error, data) from error
    except FitDiverged as error:
        raise _diverged(error, preset) from error
    if is_first:
        _report(outcome, data, arguments.out)
    return 0


def _report(outcome: experiments.Outcome, data: DataSet, folder: str) -> None:
    try:
        experiments.write_pictures(outcome, data, folder)
    except ImportError as error:  # the model is worth keeping without its pictures
        print(f"pyro-gflows: no pictures: {error}", file=sys.stderr)
    for name, value in outcome.metrics.items():
        if isinstance(value, list):  # curves are in the file and in a picture
            continue
        print(f"{name}: {f'{value:.6g}' if isinstance(value, float) else value}")
    print(f"written to {folder}")


def _announcement(preset: Preset, data: DataSet) -> str:
    """Describe how the data were read, and which flow is fitted to them."""
    read = ":" if data.format is None else f" is read as {data.format.describe()};"
    settings = preset.settings
    return (
        f"{data.name}{read} group {preset.group}, preset {preset.name}: --flow {preset.flow} --steps {settings.steps} "
        f"--batch-size {settings.batch_size} --lr {settings.optimizer.lr:g}"
    )


def _diverged(error: FitDiverged, preset: Preset) -> FitDiverged:
    """Return the error with the options to change."""
    what = str(error).split(";")[0]
    lr = preset.settings.optimizer.lr
    return FitDiverged(f"{what}; start anew with --overwrite and a lower --lr (now {lr:g}), for example {lr / 3:.1g}")


def sample(arguments: argparse.Namespace) -> int:
    """Draw samples from a saved flow, and write them to a file."""
    if arguments.number < 1:
        raise ValueError(f"expected a positive number of samples, got {arguments.number}")
    path = _array_path(arguments.out)
    flow, form = _model(arguments)
    draws = experiments.draw(flow, arguments.number, seed=arguments.seed)
    array = draws.numpy() if form is None else form.to_array(draws)
    _write_array(path, array)
    print(f"{len(array)} events of shape {array.shape[1:]} written to {path}")
    return 0


def score(arguments: argparse.Namespace) -> int:
    """Print the mean log-density of data under a saved flow, and write the log-density of every row on request."""
    path = None if arguments.out is None else _array_path(arguments.out)
    flow, form = _model(arguments)
    shape = tuple(flow.action.event_shape)
    if is_file_name(arguments.data):
        array = read_array(arguments.data, key=arguments.key)
        if form is None and array.dtype.kind != "f":
            raise TypeError(
                f"{arguments.data}: expected floating-point values, scaled as the command sample writes them, since "
                f"the flow was fitted to named data; got {array.dtype}"
            )
        form = form or EventFormat("images" if len(shape) == 3 else "vectors", shape)
        generator = torch.Generator().manual_seed(arguments.seed)
        x = form.to_events(array, source=arguments.data, generator=generator)
        scaling = None if form.gray is None else form.gray.scaling
    else:
        data = load_data(arguments.data, seed=arguments.seed)
        x, scaling = data.test, data.scaling
    x = check_data(x, event_shape=shape, source=arguments.data).to(next(flow.parameters()))
    scores = log_probs(flow, x).double()
    print(f"events: {len(scores)}")
    print(f"nll: {-float(scores.mean()):.6g} nats")
    if scaling is not None:
        bits = scaling.bits_per_dim(-float(scores.mean()), pixels=flow.action.numel)
        print(f"bits_per_dim: {bits:.6g}")
    estimated = log_det_error(flow, x)
    if not estimated.is_exact:
        print(estimated)
    if path is not None:
        _write_array(path, scores.numpy())
        print(f"written to {path}")
    return 0


def _model(arguments: argparse.Namespace) -> tuple[EquivariantFlow, EventFormat | None]:
    """Return the flow of a folder, and the format of the file that it was fitted to (None for named data)."""
    folder = RunFolder(Path(arguments.model))
    flow = folder.load()
    if (note := folder.note()) is not None:
        print(f"pyro-gflows: {note}", file=sys.stderr)
    return flow, folder.format()


def _array_path(name: str) -> Path:
    path = Path(name)
    if path.suffix not in (".npy", ".csv"):
        raise ValueError(f"expected --out to end in .npy or .csv, got {name}")
    if not path.parent.is_dir():
        raise ValueError(f"no such folder for --out: {path.parent}")
    return path


def _write_array(path: Path, array: np.ndarray) -> None:
    """Write an array as ``.npy``, or as ``.csv`` with one event a row, its components in order."""
    if path.suffix == ".csv":
        np.savetxt(path, array.reshape(len(array), -1), delimiter=",")
    else:
        np.save(path, array)


def check(arguments: argparse.Namespace) -> int:
    """Check the symmetry, the inverse and the log-det of a saved flow, layer by layer, in float64."""
    flow = _model(arguments)[0].double()
    x = experiments.draw(flow, _CHECKED_EVENTS, seed=arguments.seed)
    checks: list[tuple[str, Callable[[], None]]] = [
        (f"log-density invariant under {flow.action.group}", partial(assert_invariant, flow, flow.action, x))
    ]
    # From the data to the base, so that every layer is tested where the flow uses it.
    for number, layer in reversed(list(enumerate(flow.transforms))):
        z = layer.inv(x).detach()
        name = f"layer {number} {type(layer).__name__}"
        checks += [
            (f"{name} equivariant", partial(assert_equivariant, layer, layer.action_in, layer.action_out, z)),
            (f"{name} bijective", partial(assert_bijective, layer, z)),
            (f"{name} log-det", partial(assert_log_det, layer, z)),
        ]
        x = z
    failures = 0
    for name, test in checks:
        try:
            test()
        except AssertionError as error:
            failures += 1
            print(f"FAILED  {name}: {error}")
        else:
            print(f"ok      {name}")
    return 1 if failures else 0
