"""Checkpoints: everything that a run needs to continue as if it had never stopped, in one file written atomically."""

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
_FLOW_FORMAT = 2  # of the flow's description in checkpoints that do not state it
_NUMBER = "#number"  # the end of the name of a state that is a Python number


@dataclass
class Progress:
    """The progress of a run: its steps, times and losses.

    Attributes:
        step: The number of optimizer steps that are done.
        seconds: The time spent on these steps.
        first_loss: The training loss of the first step, in nats per event.
        smooth_loss: The moving average of the training loss.
        best_nll: The lowest validation loss.
        best_step: The step of the lowest validation loss.
        validations_without_gain: The number of validations since then.
        stopped: Whether patience or a callback ended the run before its last step.
        train_curve: Pairs (step, training loss).
        validation_curve: Pairs (step, validation loss).
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
    """The complete state of a run at one step.

    Attributes:
        identity: The properties that a resumed run must share: settings, flow and data.
        progress: The steps, times and losses.
        tensors: Weights, averages, optimizer state, position in the data and random states, by "group/name"; what the
            processes after the first one have of their own, by "rank1/group/name" and so on.
        processes: The number of processes of the run.
    """

    identity: dict[str, Any]
    progress: Progress
    tensors: dict[str, Tensor]
    processes: int = 1

    def write(self, folder: Path) -> None:
        """Replaces the checkpoint of a folder by this one, atomically."""
        description = {
            "format": _FORMAT,
            "flow_format": FORMAT,
            "identity": self.identity,
            "progress": dataclasses.asdict(self.progress),
            "processes": self.processes,
        }
        write_tensors(folder / CHECKPOINT, self.tensors, description)

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one group, by their name within the group."""
        return {
            key.removeprefix(f"{name}/"): value for key, value in self.tensors.items() if key.startswith(f"{name}/")
        }


def read_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Snapshot:
    """Reads the checkpoint of a folder, after a check that it is from the same run.

    A run that has ended may continue with more steps.

    Args:
        folder: The folder.
        identity: The properties that the run must share with the checkpoint.

    Raises:
        ValueError: There is no checkpoint, it cannot be read, or its settings, flow or data differ. The file stays
            unchanged.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise ValueError(f"no checkpoint to resume from in {folder}; start the run without resuming")
    tensors, description = read_tensors(path)
    if description.get("format") not in range(1, _FORMAT + 1):
        raise ValueError(
            f"{path} has format {description.get('format')}, expected 1 to {_FORMAT}: a newer version wrote it; "
            "update pyro_gflows"
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
                f"cannot resume from {path}: it is from a run with other {name}: stored {_short(old)}, received "
                f"{_short(new)}; resume with the same {name}, or start a new run in another folder"
            )
    return Snapshot(identity_of_file, progress, tensors, description.get("processes", 1))


def _with_names_of_format_2(description: Mapping[str, Any]) -> dict[str, Any]:
    """The description with today's names for the validation, which format 1 called "held_out"."""
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
    """The identity of a checkpoint's run, with the description of its flow in today's format."""
    identity = dict(description["identity"])
    flow = identity.get("flow")
    if isinstance(flow, dict) and isinstance(flow.get("class"), str):
        identity["flow"] = migrate(flow, description.get("flow_format", _FLOW_FORMAT), source=source)
    return identity


def steps_done(folder: str | Path) -> int:
    """The number of steps that the run in a folder has done.

    Args:
        folder: The folder of the run.

    Raises:
        ValueError: There is no checkpoint, or it cannot be read.
    """
    path = Path(folder) / CHECKPOINT
    if not path.exists():
        raise ValueError(f"no checkpoint to continue from in {folder}; start the run without resuming")
    return int(read_tensors(path)[1]["progress"]["step"])


def _check_more_steps(path: Path, progress: Progress, *, stored: int, wanted: int) -> None:
    """Checks the new number of steps: a run that has ended may continue; an interrupted run has to end first."""
    if progress.step < stored and not progress.stopped:
        raise ValueError(
            f"cannot resume from {path}: it is from a run with other settings: stored steps {stored}, received "
            f"{wanted}, and this run was interrupted after step {progress.step}; resume it with steps={stored} first"
        )
    if wanted <= progress.step:
        raise ValueError(
            f"cannot resume from {path}: {progress.step} steps are done already, received steps={wanted}; to "
            f"continue, set steps to a total above {progress.step}"
        )


def _differing(stored: Any, received: Any) -> tuple[Any, Any]:
    """The entries in which two mappings differ; other values are returned unchanged."""
    if not isinstance(stored, dict) or not isinstance(received, dict):
        return stored, received
    names = [name for name in {**stored, **received} if not alike(stored.get(name), received.get(name))]
    return {name: stored.get(name) for name in names}, {name: received.get(name) for name in names}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by "parameter index/name"; a Python number becomes a scalar tensor with a marked name."""
    return {
        f"{index}/{name}" if isinstance(value, Tensor) else f"{index}/{name}{_NUMBER}": torch.as_tensor(
            value, dtype=torch.float64 if isinstance(value, float) else None
        )
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restores the tensors of :func:`optimizer_tensors`; learning rates stay unchanged, since the schedule sets them.

    Args:
        optimizer: The optimizer, whose state is replaced.
        tensors: The tensors by "parameter index/name".
    """
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        entry = value.item() if name.endswith(_NUMBER) else value
        state.setdefault(int(index), {})[name.removesuffix(_NUMBER)] = entry
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    if all(parameter.numel() for parameter in parameters):
        state = _without_empty(state)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    # torch casts the state of a parameter to its dtype, but some optimizers use another dtype for some of it
    for number, entries in state.items():
        loaded = optimizer.state[parameters[number]]
        for name, value in entries.items():
            if isinstance(value, Tensor) and loaded[name].dtype != value.dtype:
                loaded[name] = value.to(loaded[name].device)


def _without_empty(state: dict[int, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    """The state without parameters of 0 elements, which old layers without a shift had, with new indices."""
    empty = [
        index
        for index, values in state.items()
        if any(isinstance(value, Tensor) and value.numel() == 0 for value in values.values())
    ]
    return {
        index - sum(other < index for other in empty): values for index, values in state.items() if index not in empty
    }
