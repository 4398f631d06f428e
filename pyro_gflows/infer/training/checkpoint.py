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

from pyro_gflows.infer.training.storage import read_tensors, write_tensors
from pyro_gflows.registry import same_description

__all__ = ["CHECKPOINT", "Progress", "Snapshot", "optimizer_tensors", "read_checkpoint", "restore_optimizer"]

CHECKPOINT = "checkpoint.safetensors"
_FORMAT = 1


@dataclass
class Progress:
    """The numbers of a run.

    Attributes:
        step: Optimizer steps done.
        seconds: Time spent on them.
        first_loss: Training NLL of the first step, in nats an event.
        smooth_loss: Moving average of the training NLL.
        best_nll, best_step: The lowest held-out NLL and where it was reached.
        looks_without_gain: Held-out looks since then.
        train_curve, held_out_curve: Pairs (step, NLL).
    """

    step: int = 0
    seconds: float = 0.0
    first_loss: float | None = None
    smooth_loss: float | None = None
    best_nll: float | None = None
    best_step: int = 0
    looks_without_gain: int = 0
    train_curve: list[tuple[int, float]] = field(default_factory=list)
    held_out_curve: list[tuple[int, float]] = field(default_factory=list)


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
        description = {"format": _FORMAT, "identity": self.identity, "progress": dataclasses.asdict(self.progress)}
        write_tensors(folder / CHECKPOINT, self.tensors, description)

    def group(self, name: str) -> dict[str, Tensor]:
        """The tensors of one group, by their name in it."""
        return {
            key.removeprefix(f"{name}/"): value for key, value in self.tensors.items() if key.startswith(f"{name}/")
        }


def read_checkpoint(folder: Path, identity: Mapping[str, Any]) -> Snapshot:
    """The checkpoint of a folder, if it belongs to the same run.

    Raises:
        ValueError: There is none, it cannot be read, or its settings, flow or data differ; the file is left as it is.
    """
    path = folder / CHECKPOINT
    if not path.exists():
        raise ValueError(f"no checkpoint to resume from in {folder}; start the run without resuming")
    tensors, description = read_tensors(path)
    if description.get("format") != _FORMAT:
        raise ValueError(
            f"{path} has format {description.get('format')}, expected {_FORMAT}: written by another version"
        )
    ours = json.loads(json.dumps(identity))
    for name, stored in description["identity"].items():
        if not same_description(ours.get(name), stored):
            old, new = _differing(stored, ours.get(name))
            raise ValueError(
                f"cannot resume from {path}: it is of a run with other {name}: stored {_short(old)}, received "
                f"{_short(new)}; resume with the same {name}, or start anew in another folder"
            )
    return Snapshot(description["identity"], Progress(**description["progress"]), tensors)


def _differing(stored: Any, received: Any) -> tuple[Any, Any]:
    """Of two mappings, the entries in which they differ; anything else as it is."""
    if not isinstance(stored, dict) or not isinstance(received, dict):
        return stored, received
    names = [name for name in {**stored, **received} if not same_description(stored.get(name), received.get(name))]
    return {name: stored.get(name) for name in names}, {name: received.get(name) for name in names}


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 300 else text[:297] + "..."


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """The optimizer's state by "parameter number/name"; numbers become 0-dimensional tensors."""
    return {
        f"{index}/{name}": torch.as_tensor(value)
        for index, state in optimizer.state_dict()["state"].items()
        for name, value in state.items()
        if value is not None
    }


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Take up what :func:`optimizer_tensors` gave; the learning rates stay as they are (the schedule sets them)."""
    state: dict[int, dict[str, Tensor]] = {}
    for key, value in tensors.items():
        index, name = key.split("/", 1)
        state.setdefault(int(index), {})[name] = value
    if all(parameter.numel() for group in optimizer.param_groups for parameter in group["params"]):
        state = _without_empty(state)
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _without_empty(state: dict[int, dict[str, Tensor]]) -> dict[int, dict[str, Tensor]]:
    """Without parameters of 0 elements, which layers without a shift had once; the others are numbered anew."""
    empty = [index for index, values in state.items() if any(value.numel() == 0 for value in values.values())]
    return {
        index - sum(other < index for other in empty): values for index, values in state.items() if index not in empty
    }
