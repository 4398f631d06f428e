"""Everything a run needs to go on as if it had never stopped, in one file that is never half written."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.serialization.files import read_tensors, write_tensors
from pyro_gflows.serialization.migrations import FORMAT, migrate
from pyro_gflows.training.identity import alike

__all__ = [
    "CHECKPOINT",
    "Progress",
    "Snapshot",
    "optimizer_tensors",
    "read_checkpoint",
    "restore_optimizer",
    "steps_done",
]

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = 2
_FLOW_FORMAT = 2  # of the flow's description in checkpoints that do not say which
_NUMBER = "#number"  # ends the name of a state that is a Python number


@dataclass
class Progress:
    """The numbers of a run.

    Attributes:
        step: Optimizer steps done.
        seconds: Time spent on them.
        first_loss: Training NLL of the first step, in nats an event.
        smooth_loss: Moving average of the training NLL.
        best_nll, best_step: The lowest held-out NLL and where it was reached.
        validations_without_gain: Held-out looks since then.
        stopped: Whether the run ended before its last step, by patience or by a callback.
        train_curve, validation_curve: Pairs (step, NLL).
    """

    step: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    smooth_loss: float | None = None
    best_nll: float | None = None
    best_step: int = 0
    validations_without_gain: int = 0
    stopped: bool = False
    train_curve: list[tuple[int, float]] = field(default_factory=list)
    validation_curve: list[tuple[int, float]] = field(default_factory=list)


@dataclass(frozen=True)
class Snapshot:
    """One moment of a run.

    Attributes:
        identity: What must be the same for a resumed run: settings, flow, data.
        progress: The numbers.
        tensors: Weights, averages, optimizer, data position and random number generators, by "group/name".
    """

    identity: dict[str, Any]
    progress: Progress
    tensors: dict[str, Tensor]

    def write(self, folder: Path) -> None:
        """Replace the folder's checkpoint by this one, atomically."""
        description = {
            "format": _FORMAT,
            "flow_format": FORMAT,
            "identity": self.identity,
            "progress": dataclasses.asdict(self.progress),
        }
        write_tensors(folder / CHECKPOINT, self.tensors, description)

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one group, by their name in it."""
        return {
            key.removeprefix(f"{name}/"): value for key, value in self.tensors.items() if key.startswith(f"{name}/")
        }


def read_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Snapshot:
    """The checkpoint of a folder, if it belongs to the same run, or to one that has ended and is to have other steps.

    Raises:
        ValueError: There is none, it cannot be read, or its settings, flow or data differ; the file is left as it is.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise ValueError(f"no checkpoint to resume from in {folder}; start the run without resuming")
    tensors, description = read_tensors(path)
    if description.get("format") not in range(1, _FORMAT + 1):
        raise ValueError(
            f"{path} has format {description.get('format')}, expected 1 to {_FORMAT}: written by another version"
        )
    if description["format"] == 1:
        description = _with_names_of_format_2(description)
    ours = json.loads(json.dumps(identity))
    progress = Progress(**description["progress"])
    identity_of_file = _of_today(description, source=str(path))
    for name, stored in identity_of_file.items():
        if not alike(stored, ours.get(name)):
            old, new = _differing(stored, ours.get(name))
            if name == "settings" and set(old) == {"steps"}:
                _check_more_steps(path, progress, stored=int(old["steps"]), wanted=int(new["steps"]))
                continue
            raise ValueError(
                f"cannot resume from {path}: it is of a run with other {name}: stored {_short(old)}, received "
                f"{_short(new)}; resume with the same {name}, or start anew in another folder"
            )
    return Snapshot(identity_of_file, progress, tensors)


def _with_names_of_format_2(description: Mapping[str, Any]) -> dict[str, Any]:
    """Format 1 called the validation "held_out"."""
    names = {"held_out_curve": "validation_curve", "looks_without_gain": "validations_without_gain"}
    progress = {names.get(name, name): value for name, value in description["progress"].items()}
    identity = dict(description["identity"])
    identity["settings"] = {
        "validation" if name == "held_out" else name: value.replace("HeldOut(", "Validation(")
        if isinstance(value, str)
        else value
        for name, value in identity["settings"].items()
    }
    return {**description, "progress": progress, "identity": identity}


def _of_today(description: Mapping[str, Any], *, source: str) -> dict[str, Any]:
    """What a checkpoint's run is compared by, with the description of its flow in today's form, where it has one."""
    identity = dict(description["identity"])
    flow = identity.get("flow")
    if isinstance(flow, dict) and isinstance(flow.get("class"), str):
        identity["flow"] = migrate(flow, description.get("flow_format", _FLOW_FORMAT), source=source)
    return identity


def steps_done(folder: str | Path) -> int:
    """How many steps the run in a folder has done.

    Raises:
        ValueError: No checkpoint, or one that cannot be read.
    """
    path = Path(folder) / CHECKPOINT
    if not path.exists():
        raise ValueError(f"no checkpoint to go on from in {folder}")
    return int(read_tensors(path)[1]["progress"]["step"])


def _check_more_steps(path: Path, progress: Progress, *, stored: int, wanted: int) -> None:
    """A run that has ended may go on to a later step; one that was interrupted has to end first."""
    if progress.step < stored and not progress.stopped:
        raise ValueError(
            f"cannot resume from {path}: it is of a run with other settings: stored steps {stored}, received {wanted}, "
            f"and that run was interrupted after step {progress.step}; resume it with steps={stored} first"
        )
    if wanted <= progress.step:
        raise ValueError(
            f"cannot resume from {path}: {progress.step} steps are done already, received steps={wanted}; to go on, "
            "ask for more steps in all than that"
        )


def _differing(stored: Any, received: Any) -> tuple[Any, Any]:
    """Of two mappings, the entries in which they differ; anything else as it is."""
    if not isinstance(stored, dict) or not isinstance(received, dict):
        return stored, received
    names = [name for name in {**stored, **received} if not alike(stored.get(name), received.get(name))]
    return {name: stored.get(name) for name in names}, {name: received.get(name) for name in names}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by "parameter number/name"; a number becomes a 0-dimensional tensor, and is marked."""
    return {
        f"{index}/{name}" if isinstance(value, Tensor) else f"{index}/{name}{_NUMBER}": torch.as_tensor(
            value, dtype=torch.float64 if isinstance(value, float) else None
        )
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take up what :func:`optimizer_tensors` gave; the learning rates stay as they are (the schedule sets them)."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        entry = value.item() if name.endswith(_NUMBER) else value
        state.setdefault(int(index), {})[name.removesuffix(_NUMBER)] = entry
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if all(parameter.numel() for parameter in parameters):
        state = _without_empty(state)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # torch has cast what belongs to a parameter to its dtype, which some classes do not use for all of their state
    for number, entries in state.items():
        loaded = optimizer.state[parameters[number]]
        for name, value in entries.items():
            if isinstance(value, Tensor) and loaded[name].dtype != value.dtype:
                loaded[name] = value.to(loaded[name].device)


def _without_empty(state: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """Without parameters of 0 elements, which layers without a shift had once; the others are numbered anew."""
    empty = [
        index
        for index, values in state.items()
        if any(isinstance(value, Tensor) and value.numel() == 0 for value in values.values())
    ]
    return {
        index - sum(other < index for other in empty): values for index, values in state.items() if index not in empty
    }
