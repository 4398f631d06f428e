"""From the options of ``fit`` to data and a recipe, and what to try where a recipe does not fit the data."""

from __future__ import annotations

import argparse
import dataclasses
import re
from typing import Any

from pyro_gflows.actions import Action, OffGridAction
from pyro_gflows.datasets import DataSet, FileOptions, is_file_name, load_data
from pyro_gflows.experiments.presets import PRESETS, Preset, own_preset, preset_for
from pyro_gflows.flows.families import FAMILIES, UnsuitableFamily, build_flow
from pyro_gflows.groups import parse_group
from pyro_gflows.training import Adam
from pyro_gflows.training.checkpoint import steps_done

__all__ = ["options_of", "read_data", "recipe", "unsuitable"]


def read_data(arguments: argparse.Namespace) -> DataSet:
    """The data that the command names.

    Raises:
        ValueError: unknown data, a file that cannot be used, a file without a group, options of files with named data,
            or a download that failed.
    """
    name = arguments.data
    for option in ("group", "augment"):
        _check_group(getattr(arguments, option), option)
    if not is_file_name(name):
        given = [f"--{option}" for option in ("events", "levels", "key") if getattr(arguments, option) is not None]
        try:
            data = load_data(name, seed=arguments.seed)
        except RuntimeError as error:
            raise ValueError(str(error)) from error
        if given:
            raise ValueError(f"{', '.join(given)} is for your own files, got the known data {name}")
        return data
    if arguments.group is None:
        raise ValueError("your own data need --group, their symmetry: for example C4 or D8, or C1 for none")
    options = FileOptions(arguments.group, arguments.events, arguments.levels, arguments.key)
    return load_data(name, seed=arguments.seed, file=options)


def recipe(arguments: argparse.Namespace, data: DataSet) -> Preset:
    """The recipe that is named, or the data's, with what the other options change.

    A recipe that is named for other data than it was made for brings its layers and its training, but not its group:
    that is the data's own.
    """
    if data.format is None:
        own = preset_for(data.name, flow=None if arguments.preset else arguments.flow)
    else:
        own = own_preset(data.format, group=arguments.group, flow=None if arguments.preset else arguments.flow)
    preset = PRESETS[arguments.preset] if arguments.preset else own
    if preset.data != own.data:
        preset = preset.change(data=own.data, group=own.group, augment="")
        if data.scaling is None and preset.logit is not None:
            preset = preset.change(logit=None)  # it is made for gray levels, which have ends
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
    return preset.change(group=_spelt(group), augment=_spelt(augment), variational=variational, settings=settings)


def _steps_in_all(arguments: argparse.Namespace) -> int:
    """Those that the run in the folder has done, and the further ones that are asked for."""
    if arguments.steps is not None:
        raise ValueError("give either --steps, the number in all, or --more-steps, those after the last one")
    if arguments.more_steps < 1:
        raise ValueError(f"expected --more-steps to be at least 1, got {arguments.more_steps}")
    return steps_done(arguments.out) + int(arguments.more_steps)


def options_of(arguments: argparse.Namespace, preset: Preset) -> dict[str, Any]:
    """What the command comes to, by the names that the command line has for it; a resumed run must be alike.

    The number of steps is left out, since a run may go on for more, and so is the name of a file: its numbers are
    compared with those of the checkpoint.
    """
    named = {} if is_file_name(arguments.data) else {"DATA": arguments.data}
    files = {f"--{name}": getattr(arguments, name) for name in ("events", "levels", "key")}
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
    """The same in the words of the command line: why a kind of layers does not fit, and which kinds do."""
    family, action = error.family, error.action
    if isinstance(action, OffGridAction) and family != "image-soft":
        exact = action.exact_subgroup.group
        return ValueError(
            f"a grid of {action.height} x {action.width} pixels cannot be turned by all of {action.group} exactly: "
            f"take --group {exact}, which it can, or --flow image-soft, whose networks alone carry {action.group}"
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
    if "cannot be split" in str(error):
        return f"its layers need events that split into parts, each of which {error.action.group} maps to itself"
    return re.sub(r",? got \w+Action\(.*", "", str(error).split(";")[0])


def _families_for(action: Action) -> list[str]:
    """The families that can be built for an action, each tried in a small size."""
    can = []
    for family in sorted(FAMILIES):
        scales = {"scales": 1} if family.startswith("image-") else {}
        if family == "image-soft" and not isinstance(action, OffGridAction):
            continue  # it would give the symmetry up
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


def _spelt(group: str) -> str:
    """A group's name as it is usually written."""
    return group if group in ("", "translations") else str(parse_group(group))
