"""A trained flow on disk: weights as safetensors, structure as JSON. Loading runs no code from the files."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pyro_gflows.infer.training.storage import check_writable, read_json, read_tensors, write_json, write_tensors

if TYPE_CHECKING:
    from pyro_gflows.flow import EquivariantFlow

__all__ = ["load", "save"]

_STRUCTURE, _WEIGHTS = "model.json", "model.safetensors"
_FORMAT = 1


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
    write_tensors(folder / _WEIGHTS, flow.state_dict(), {"format": _FORMAT})
    write_json(
        folder / _STRUCTURE,
        {"format": _FORMAT, "dtype": dtype, "weights_sha256": _sha256(folder / _WEIGHTS), "flow": structure},
    )


def load(folder: str | Path, *, device: torch.device | str = "cpu") -> EquivariantFlow:
    """Build the flow that :func:`save` wrote, in evaluation mode.

    Args:
        folder: Where it was saved.
        device: Where to put it.

    Raises:
        ValueError: A file is missing, truncated, damaged or not of the other one's model.
    """
    from pyro_gflows.flow import EquivariantFlow

    folder = Path(folder)
    description = read_json(folder / _STRUCTURE)
    if description.get("format") != _FORMAT:
        raise ValueError(f"{folder / _STRUCTURE} has format {description.get('format')!r}, expected {_FORMAT}")
    tensors, _ = read_tensors(folder / _WEIGHTS)
    if _sha256(folder / _WEIGHTS) != description["weights_sha256"]:
        raise ValueError(
            f"{folder / _WEIGHTS} does not belong to {folder / _STRUCTURE}: its sha256 differs; save again"
        )
    flow = EquivariantFlow.from_config(description["flow"])
    flow.to(device=device, dtype=getattr(torch, description["dtype"]))
    flow.load_state_dict(tensors)
    return flow.eval()


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
