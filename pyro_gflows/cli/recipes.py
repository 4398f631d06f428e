"""The data and the preset that the options of ``fit`` name, and advice where a preset does not suit the data."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import Any

from pyro_gflows.actions import Action, OffGridAction, ParticleAction
from pyro_gflows.datasets import DataSet, FileOptions, is_named, load_data
from pyro_gflows.datasets.large_files import is_path
from pyro_gflows.experiments.presets import PRESETS, Preset, own_preset, preset_for
from pyro_gflows.flows.families import FAMILIES, UnsuitableFamily, build_flow
from pyro_gflows.groups import parse_group
from pyro_gflows.training import Adam
from pyro_gflows.training.checkpoint import steps_done

__all__ = ["options_of", "read_data", "recipe", "unsuitable"]

_OF_FILES = ("events", "levels", "center", "key")  # options that say how a file is to be read


def read_data(arguments: argparse.Namespace) -> DataSet:
    """Load the data that the command names.

    Raises:
        ValueError: If the data are unknown, if a file cannot be used or has no ``--group``, if options for files are
            given with named data, or if a download failed.
    """
    name = arguments.data
    for option in ("group", "augment"):
        _check_group(getattr(arguments, option), option)
    if is_named(name) or not is_path(name):
        given = [f"--{option}" for option in _OF_FILES if getattr(arguments, option) is not None]
        if given and is_named(name):
            raise ValueError(f"{', '.join(given)} is for your own files, got the named data {name}; leave it out")
        try:
            return load_data(name, seed=arguments.seed, progress=not getattr(arguments, "quiet", False))
        except RuntimeError as error:
            raise ValueError(str(error)) from error
    if arguments.group is None:
        raise ValueError("your own data need --group, the symmetry of the flow: for example C4 or D8, or C1 for none")
    options = FileOptions(arguments.group, arguments.events, arguments.levels, arguments.key, center=arguments.center)
    return load_data(name, seed=arguments.seed, file=options)


def recipe(arguments: argparse.Namespace, data: DataSet) -> Preset:
    """Return the named preset, or the default preset for the data, with the changes by the other options.

    A preset that was made for other data gives the layers and the training, but not the group, which is the symmetry of
    these data.
    """
    if data.format is None:
        own = preset_for(data.name, flow=None if arguments.preset else arguments.flow)
    else:
        flow = None if arguments.preset else arguments.flow
        own = own_preset(data.format, group=arguments.group, flow=flow, events=data.validation)
    preset = PRESETS[arguments.preset] if arguments.preset else own
    if preset.data != own.data:
        preset = preset.change(data=own.data, group=own.group, augment="")
        if data.scaling is None and preset.logit is not None:
            preset = preset.change(logit=None)  # logit preprocessing is for gray levels, which lie in an interval
    if arguments.flow is not None and arguments.flow != preset.flow:
        preset = preset.with_flow(arguments.flow)
    wanted = {name: getattr(arguments, name) for name in ("steps", "batch_size", "seed")}
    changes: dict[str, Any] = {name: value for name, value in wanted.items() if value is not None}
    if arguments.more_steps is not None:
        changes["steps"] = _steps_in_all(arguments)
    if arguments.lr is not None:
        optimizer = preset.settings.optimizer
        adam = optimizer if isinstance(optimizer, Adam) else Adam()
        changes["optimizer"] = dataclasses.replace(adam, lr=arguments.lr)
    settings = dataclasses.replace(preset.settings, **changes)
    group, augment = arguments.group or preset.group, arguments.augment or preset.augment
    variational = preset.variational or arguments.variational
    if variational and data.scaling is None:
        raise ValueError(f"--variational: expected images of gray levels, got {_in_words(data)}; leave it out")
    return preset.change(
        group=_usual_name(group), augment=_usual_name(augment), variational=variational, settings=settings
    )


def _steps_in_all(arguments: argparse.Namespace) -> int:
    """Return the number of steps that the run in the folder has done, plus ``--more-steps``."""
    if arguments.steps is not None:
        raise ValueError("give either --steps, the number of all steps, or --more-steps, the number of further steps")
    if arguments.more_steps < 1:
        raise ValueError(f"expected --more-steps to be at least 1, got {arguments.more_steps}")
    return steps_done(arguments.out) + int(arguments.more_steps)


def options_of(arguments: argparse.Namespace, preset: Preset) -> dict[str, Any]:
    """Return the options of a run by their names on the command line, which must be the same when the run is resumed.

    The number of steps is left out, since a run may go on for more. The name of a file is left out too; its values are
    compared with those of the checkpoint.
    """
    named = {} if not is_named(arguments.data) else {"DATA": arguments.data}
    files = {f"--{name}": getattr(arguments, name) for name in _OF_FILES}
    settings = preset.settings
    return {
        **named,
        "--preset": preset.name,
        "--flow": preset.flow,
        "--group": preset.group,
        "--augment": preset.augment,
        "--variational": preset.variational,
        "--batch-size": settings.batch_size,
        "--lr": settings.optimizer.lr,
        "--seed": settings.seed,
        **files,
    }


def unsuitable(error: UnsuitableFamily, data: DataSet) -> ValueError:
    """Return an error in the words of the command line: why a family is unsuitable, and which families are suitable."""
    family, action = error.family, error.action
    if isinstance(action, OffGridAction) and family != "image-soft":
        exact = action.exact_subgroup.group
        return ValueError(
            f"{action.group} does not act exactly on a grid of {action.height} x {action.width} pixels: take --group "
            f"{exact}, which does, or --flow image-soft, of which only the networks are equivariant under "
            f"{action.group}"
        )
    can = _families_for(action)
    if family in can:
        return ValueError(
            f"--flow {family} cannot be built in this size for {_in_words(data)}: {_reason(error)}; leave --preset out"
        )
    return ValueError(
        f"--flow {family} cannot be built for {_in_words(data)} under {action.group}: {_reason(error)}; "
        + (f"choose --flow {' or '.join(can)}, or another --group" if can else "choose another --group")
    )


def _reason(error: UnsuitableFamily) -> str:
    family, is_image = error.family, error.action.event_dim == 3
    if family.startswith("image-") and not is_image:
        return "it is for images"
    if family in ("radial", "ridges") and is_image:
        return "it is for vectors"
    if family in ("pair-potential", "placement") and not isinstance(error.action, ParticleAction):
        return "it is for particles"
    if "cannot be split" in str(error):
        return f"its layers need events that split into parts, each of which {error.action.group} maps to itself"
    return re.sub(r",? got \w+Action\(.*", "", str(error).split(";")[0])


def _families_for(action: Action) -> list[str]:
    """Return the families that can be built for an action; each is tried in a small size."""
    can = []
    for family in sorted(FAMILIES):
        scales = {"scales": 1} if family.startswith("image-") else {}
        if family == "image-soft" and not isinstance(action, OffGridAction):
            continue  # its layers would not keep the symmetry
        try:
            build_flow(family, action, size={"blocks": 1, **scales})
        except (ValueError, TypeError):
            continue
        can.append(family)
    return can


def _in_words(data: DataSet) -> str:
    return f"{data.name} (events of shape {tuple(data.event_shape)})" if data.format is None else data.format.describe()


def _check_group(name: str | None, option: str) -> None:
    if name is None or name == "translations":
        return
    try:
        parse_group(name)
    except ValueError as error:
        raise ValueError(f"--{option} {name}: {str(error).split(';')[0]}") from error


def _usual_name(group: str) -> str:
    """Return the name of a group as it is usually written."""
    return group if group in ("", "translations") else str(parse_group(group))
