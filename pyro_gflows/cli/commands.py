"""What ``fit``, ``sample``, ``score`` and ``check`` do with their arguments."""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np

from pyro_gflows import experiments
from pyro_gflows.datasets import load_array, load_data
from pyro_gflows.infer import Adam, check_data, load, log_det_error, log_probs
from pyro_gflows.infer.training.checkpoint import steps_done
from pyro_gflows.presets import PRESETS, Preset, preset_for
from pyro_gflows.testing import assert_bijective, assert_equivariant, assert_invariant, assert_log_det

__all__ = ["check", "fit", "sample", "score"]

_CHECKED_EVENTS = 4


def fit(arguments: argparse.Namespace) -> int:
    """Fit, save, measure, draw."""
    data = load_data(arguments.data, seed=arguments.seed)
    preset = _preset(arguments)
    resume = arguments.resume or arguments.more_steps is not None
    outcome = experiments.run(preset, data, arguments.out, resume=resume, progress=not arguments.quiet)
    try:
        experiments.write_pictures(outcome, data, arguments.out)
    except ImportError as error:  # the model is worth keeping without its pictures
        print(f"pyro-gflows: no pictures: {error}", file=sys.stderr)
    for name, value in outcome.metrics.items():
        if isinstance(value, list):  # curves are for the file and the picture
            continue
        print(f"{name}: {f'{value:.6g}' if isinstance(value, float) else value}")
    print(f"written to {arguments.out}")
    return 0


def _preset(arguments: argparse.Namespace) -> Preset:
    """The recipe that was named, or the data's, with what the other arguments change."""
    preset = PRESETS[arguments.preset] if arguments.preset else preset_for(arguments.data, flow=arguments.flow)
    if not preset.data and arguments.group is None:
        raise ValueError("your own data need --group, their symmetry: for example C4 or D8, or C1 for none")
    if arguments.flow is not None and arguments.flow != preset.flow:
        preset = preset.with_flow(arguments.flow)
    wanted = {name: getattr(arguments, name) for name in ("steps", "batch_size", "seed")}
    changes = {name: value for name, value in wanted.items() if value is not None}
    if arguments.more_steps is not None:
        changes["steps"] = _steps_in_all(arguments)
    if arguments.lr is not None:
        changes["optimizer"] = Adam(lr=arguments.lr)
    settings = dataclasses.replace(preset.settings, **changes)
    group, augment = arguments.group or preset.group, arguments.augment or preset.augment
    variational = preset.variational or arguments.variational
    return preset.change(group=group, augment=augment, variational=variational, settings=settings)


def _steps_in_all(arguments: argparse.Namespace) -> int:
    """Those that the run in the folder has done, and the further ones that are asked for."""
    if arguments.steps is not None:
        raise ValueError("give either --steps, the number in all, or --more-steps, those after the last one")
    if arguments.more_steps < 1:
        raise ValueError(f"expected --more-steps to be at least 1, got {arguments.more_steps}")
    return steps_done(arguments.out) + int(arguments.more_steps)


def sample(arguments: argparse.Namespace) -> int:
    """Draw from a saved flow."""
    if arguments.number < 1:
        raise ValueError(f"expected a positive number of samples, got {arguments.number}")
    path = _array_path(arguments.out)
    draws = experiments.draw(load(arguments.model), arguments.number, seed=arguments.seed)
    np.save(path, draws.numpy())
    print(f"{len(draws)} events of shape {tuple(draws.shape[1:])} written to {path}")
    return 0


def score(arguments: argparse.Namespace) -> int:
    """Log-densities of data under a saved flow."""
    path = None if arguments.out is None else _array_path(arguments.out)
    flow = load(arguments.model)
    is_file = Path(arguments.data).suffix in (".npy", ".npz", ".csv")
    data = None if is_file else load_data(arguments.data, seed=arguments.seed)
    x = load_array(arguments.data) if data is None else data.test
    x = check_data(x, event_shape=flow.action.event_shape, source=arguments.data).to(next(flow.parameters()))
    scores = log_probs(flow, x).double()
    print(f"events: {len(scores)}")
    print(f"nll: {-float(scores.mean()):.6g} nats")
    if data is not None and data.scaling is not None:
        bits = data.scaling.bits_per_dim(-float(scores.mean()), pixels=flow.action.numel)
        print(f"bits_per_dim: {bits:.6g}")
    estimated = log_det_error(flow, x)
    if not estimated.is_exact:
        print(estimated)
    if path is not None:
        np.save(path, scores.numpy())
        print(f"written to {path}")
    return 0


def _array_path(name: str) -> Path:
    path = Path(name)
    if path.suffix != ".npy":
        raise ValueError(f"expected --out to end in .npy, got {name}")
    if not path.parent.is_dir():
        raise ValueError(f"no such folder for --out: {path.parent}")
    return path


def check(arguments: argparse.Namespace) -> int:
    """Test what a saved flow promises, layer by layer, in float64."""
    flow = load(arguments.model).double()
    x = experiments.draw(flow, _CHECKED_EVENTS, seed=arguments.seed)
    checks: list[tuple[str, Callable[[], None]]] = [
        (f"log-density invariant under {flow.action.group}", partial(assert_invariant, flow, flow.action, x))
    ]
    # From data back to base, so that every layer is tested where the flow uses it.
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
