"""The commands ``fit`` and ``check``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

from pyro_gflows.cli.devices import check_devices, devices_of, reporting
from pyro_gflows.cli.folders import RunFolder, model_of
from pyro_gflows.cli.recipes import options_of, read_data, recipe, unsuitable
from pyro_gflows.datasets import DataSet
from pyro_gflows.experiments import runs as experiments
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.flows.families import UnsuitableFamily
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_invariant, assert_log_det
from pyro_gflows.training import Devices, FitDiverged

__all__ = ["check", "fit"]

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


def check(arguments: argparse.Namespace) -> int:
    """Check the symmetry, the inverse and the log-det of a saved flow, layer by layer, in float64."""
    flow = model_of(arguments)[0].double()
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
