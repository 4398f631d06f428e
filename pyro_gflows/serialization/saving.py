"""A trained flow on disk: weights as safetensors, structure as JSON. Loading runs no code from the files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from pyro_gflows.serialization.files import check_writable, read_json, read_tensors, write_json, write_tensors
from pyro_gflows.serialization.migrations import FORMAT, migrate, migrated_weights
from pyro_gflows.serialization.registry import build

if TYPE_CHECKING:
    from pyro_gflows.flows import EquivariantFlow

__all__ = ["STRUCTURE", "WEIGHTS", "load", "save"]

STRUCTURE, WEIGHTS = "model.json", "model.safetensors"


def save(flow: EquivariantFlow, folder: str | Path) -> None:
    """Write ``model.json`` and ``model.safetensors`` into a folder, each atomically.

    Args:
        flow: The flow; its dtype is kept.
        folder: Made if needed.

    Raises:
        ValueError: The folder is not writable.
        TypeError: A class of the flow is not registered, so that it has no description.
    """
    # Refused before anything is written, so that the old model stays whole.
    structure = json.loads(json.dumps(flow.config()))
    folder = check_writable(folder)
    dtype = str(next(flow.parameters()).dtype).removeprefix("torch.")
    write_tensors(folder / WEIGHTS, flow.state_dict(), {"format": FORMAT})
    write_json(
        folder / STRUCTURE,
        {"format": FORMAT, "dtype": dtype, "weights_sha256": _sha256(folder / WEIGHTS), "flow": structure},
    )


def load(folder: str | Path, *, device: torch.device | str = "cpu") -> EquivariantFlow:
    """Build the flow that :func:`save` wrote, in evaluation mode.

    Args:
        folder: Where it was saved.
        device: Where to put it.

    Raises:
        ValueError: A file is missing, truncated, damaged, not of the other one's model, or of a later version.

    Warns:
        UserWarning: The file is of an earlier version and does not hold all that its weights refer to.
    """
    folder = Path(folder)
    description = read_json(folder / STRUCTURE)
    structure = migrate(description.get("flow"), description.get("format"), source=str(folder / STRUCTURE))
    tensors, _ = read_tensors(folder / WEIGHTS)
    if _sha256(folder / WEIGHTS) != description["weights_sha256"]:
        raise ValueError(f"{folder / WEIGHTS} does not belong to {folder / STRUCTURE}: its sha256 differs; save again")
    built = build(structure)
    if not isinstance(built, nn.Module):
        raise ValueError(f"{folder / STRUCTURE}: expected a description of a flow, got one of {type(built).__name__}")
    flow: Any = built
    flow.to(device=device, dtype=getattr(torch, description["dtype"]))
    known = migrated_weights(tensors, flow.state_dict().keys())
    flow.load_state_dict({**_newer_than(flow, description["format"]), **known})
    return flow.eval()


def _newer_than(flow: nn.Module, version: int) -> dict[str, Tensor]:
    """The tensors of the modules that files of a format do not hold: their class says in ``since_format`` who does.

    Such a module gets them from its description, which was migrated.
    """
    newer: dict[str, Tensor] = {}
    for name, module in flow.named_modules():
        if getattr(module, "since_format", 1) > version:
            newer.update(module.state_dict(prefix=f"{name}."))
    return newer


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
