"""The commands ``sample`` and ``score``, which write and read files of any size, on one device or several."""

from __future__ import annotations

import argparse
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.actions import ParticleAction
from pyro_gflows.cli.devices import add_devices, check_devices, devices_of, reporting
from pyro_gflows.cli.folders import model_of
from pyro_gflows.datasets import (
    EventFormat,
    FileRows,
    GrayLevels,
    check_data,
    is_file_name,
    is_named,
    load_data,
    read_array,
)
from pyro_gflows.datasets.large_files import opened_rows
from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.evaluation import ScoreReport, StreamSettings, log_det_error, sample_rows, score_rows
from pyro_gflows.evaluation.shards import output_of
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.training import Devices, Engine
from pyro_gflows.training.engines.devices import launch
from pyro_gflows.training.processes import started_by_others

__all__ = ["add_stream", "sample", "score"]

_SOME = 256  # events on which errors of log-dets are measured


def add_stream(command: argparse.ArgumentParser) -> None:
    """Add the options of commands that work in shards.

    Args:
        command: The parser of the command.
    """
    command.add_argument(
        "--shard-rows",
        type=int,
        default=StreamSettings.shard_rows,
        metavar="N",
        help="the number of rows of a shard, which is the unit of work of a device, of --resume and of the files in a "
        f"folder; random draws depend on it (default: {StreamSettings.shard_rows})",
    )
    command.add_argument(
        "--resume", action="store_true", help="go on with the shards of a stopped command with the same options"
    )
    add_devices(command, what="each of which takes some of the shards")
    command.add_argument("--quiet", action="store_true", help="show no progress bar")


def sample(arguments: argparse.Namespace) -> int:
    """Draw samples from a saved flow, and write them to a file or a folder of shards."""
    if arguments.number < 1:
        raise ValueError(f"expected a positive number of samples, got {arguments.number}")
    settings, devices = _settings(arguments), _devices(arguments)
    output_of(arguments.out)
    flow, form = model_of(arguments)
    with reporting(devices, quiet=arguments.quiet) as is_first:
        job = _Samples(flow, arguments.number, arguments.out, form=form, settings=settings)
        launch(devices, job, module=flow)
        if is_first:
            shape = tuple(flow.action.event_shape) if form is None else form.shape
            print(f"{arguments.number} events of shape {shape} written to {arguments.out}")
    return 0


def score(arguments: argparse.Namespace) -> int:
    """Print the mean log-density of data under a saved flow, and write the log-density of every row on request."""
    settings, devices = _settings(arguments), _devices(arguments)
    if arguments.out is not None:
        output_of(arguments.out)
    elif arguments.resume:
        raise ValueError("expected --out with --resume: without --out nothing is kept to go on with")
    flow, form = model_of(arguments)
    with reporting(devices, quiet=arguments.quiet) as is_first:
        scored = _scored(arguments, flow, form)
        job = _Scores(flow, scored, arguments.out, settings=settings)
        report = launch(devices, job, module=flow)
        if is_first:
            _report(report, scored, flow)
            if arguments.out is not None:
                print(f"written to {arguments.out}")
    return 0


@dataclass(frozen=True)
class _Events:
    """The events to score: rows, how they become events, and the scaling of images."""

    rows: FileRows | Tensor
    source: str
    form: EventFormat | None = None
    scaling: GrayLevels | None = None

    def some(self, count: int) -> Tensor:
        """Return the first events."""
        rows = as_rows(self.rows)
        return self.prepare(rows.take(torch.arange(min(count, len(rows)))), torch.Generator().manual_seed(0))

    def prepare(self, block: Tensor, generator: torch.Generator) -> Tensor:
        """Return a block of rows as events, where they are rows of a file."""
        if self.form is None:
            return block
        return self.form.to_events(block.numpy(), source=f"{self.source} (a part of it)", generator=generator)


@dataclass(frozen=True)
class _Scores:
    """The scoring, as each of several processes carries it out."""

    flow: EquivariantFlow
    events: _Events
    out: str | None
    settings: StreamSettings

    def __call__(self, engine: Engine) -> ScoreReport:
        return score_rows(
            self.flow,
            self.events.rows,
            out=self.out,
            prepare=None if self.events.form is None else self.events.prepare,
            settings=self.settings,
            processes=engine,
        )


@dataclass(frozen=True)
class _Samples:
    """The sampling, as each of several processes carries it out."""

    flow: EquivariantFlow
    number: int
    out: str
    form: EventFormat | None
    settings: StreamSettings

    def __call__(self, engine: Engine) -> None:
        finish = None if self.form is None else self.form.to_array
        sample_rows(self.flow, self.number, self.out, finish=finish, settings=self.settings, processes=engine)


def _scored(arguments: argparse.Namespace, flow: EquivariantFlow, form: EventFormat | None) -> _Events:
    """Open the data of the command: large files are read while they are scored, all others at once."""
    name, shape = arguments.data, tuple(flow.action.event_shape)
    opened = None if is_named(name) else opened_rows(name, key=arguments.key)
    if opened is None and not is_file_name(name):
        data = load_data(name, seed=arguments.seed, progress=not arguments.quiet)
        return _Events(check_data(data.test, event_shape=shape, source=name), name, scaling=data.scaling)
    rows: np.ndarray | FileRows = read_array(name, key=arguments.key) if opened is None else opened
    floating = rows.dtype.is_floating_point if isinstance(rows, FileRows) else rows.dtype.kind == "f"
    if form is None and not floating:
        raise TypeError(
            f"{name}: expected floating-point values, scaled as the command sample writes them, since "
            f"the flow was fitted to named data; got {str(rows.dtype).removeprefix('torch.')}"
        )
    form = form or _own_format(flow)
    scaling = None if form.gray is None else form.gray.scaling
    generator = torch.Generator().manual_seed(arguments.seed)
    if isinstance(rows, FileRows):
        events = _Events(rows, name, form, scaling)
        check_data(events.some(1), event_shape=shape, source=name)
        return events
    x = form.to_events(rows, source=name, generator=generator)
    return _Events(check_data(x, event_shape=shape, source=name), name, scaling=scaling)


def _own_format(flow: EquivariantFlow) -> EventFormat:
    """The format of events as a flow draws them."""
    if isinstance(flow.action, ParticleAction):
        return EventFormat("particles", tuple(flow.action.event_shape), center=flow.action.center)
    shape = tuple(flow.action.event_shape)
    return EventFormat("images" if len(shape) == 3 else "vectors", shape)


def _report(report: ScoreReport, events: _Events, flow: EquivariantFlow) -> None:
    print(f"events: {report.rows}")
    print(f"nll: {report.nll:.6g} nats")
    if events.scaling is not None:
        print(f"bits_per_dim: {events.scaling.bits_per_dim(report.nll, pixels=flow.action.numel):.6g}")
    estimated = log_det_error(flow, events.some(_SOME).to(next(flow.parameters())))
    if not estimated.is_exact:
        print(estimated)


def _settings(arguments: argparse.Namespace) -> StreamSettings:
    if arguments.shard_rows < 1:
        raise ValueError(f"expected --shard-rows to be at least 1, got {arguments.shard_rows}")
    return StreamSettings(
        shard_rows=arguments.shard_rows,
        seed=arguments.seed,
        resume=arguments.resume,
        progress=not arguments.quiet,
    )


def _devices(arguments: argparse.Namespace) -> Devices:
    """Return the devices of the command, which starts only its work in further processes, and not itself again."""
    devices = devices_of(arguments)
    if devices.is_plain:
        return devices
    devices = replace(devices, strategy="ddp_spawn" if started_by_others() is None else "ddp")
    check_devices(devices, batch_size=devices.processes)  # there may be fewer shards than processes
    return devices
