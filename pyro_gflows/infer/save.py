"""A trained flow on disk: weights as safetensors, structure as JSON. Loading runs no code from the files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import torch

from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.infer.migrations import FORMAT, migrate
from pyro_gflows.infer.training.storage import check_writable, read_json, read_tensors, write_json, write_tensors
from pyro_gflows.transforms.split_basis import SPLIT_BASIS

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
    flow = EquivariantFlow.from_config(structure)
    flow.to(device=device, dtype=getattr(torch, description["dtype"]))
    for name, value in flow.state_dict().items():
        if name.endswith(SPLIT_BASIS):  # a file of an earlier version has none, and was migrated to the one it needs
            tensors.setdefault(name, value)
    flow.load_state_dict(tensors)
    return flow.eval()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
