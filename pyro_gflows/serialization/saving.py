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
    """Write a flow into a folder, as ``model.json`` (its structure) and ``model.safetensors`` (its weights).

    Each file is written atomically. :func:`load` reads them.

    Args:
        flow: The flow; its dtype is kept.
        folder: The folder, which is created if it does not exist.

    Raises:
        ValueError: If the folder is not writable.
        TypeError: If ``flow`` is not a flow or ``folder`` not a path, or if a class of the flow is not registered, so
            that it has no description.

    Example:
        >>> import tempfile
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(flow, folder)
        ...     sorted(path.name for path in Path(folder).iterdir())
        ['model.json', 'model.safetensors']
    """
    if not isinstance(flow, nn.Module) or not hasattr(flow, "config"):
        instead = "; its flow has the structure: save(flow, folder), not flow.dist" if hasattr(flow, "log_prob") else ""
        raise TypeError(
            f"expected save(flow, folder) with an EquivariantFlow first, got {type(flow).__name__}{instead}"
        )
    if not isinstance(folder, (str, Path)):
        raise TypeError(f"expected save(flow, folder) with the path of a folder, got {type(folder).__name__}")
    # An error comes before anything is written, so that an older model in the folder stays whole.
    structure = json.loads(json.dumps(flow.config()))
    folder = check_writable(folder)
    dtype = str(next(flow.parameters()).dtype).removeprefix("torch.")
    write_tensors(folder / WEIGHTS, flow.state_dict(), {"format": FORMAT})
    write_json(
        folder / STRUCTURE,
        {"format": FORMAT, "dtype": dtype, "weights_sha256": _sha256(folder / WEIGHTS), "flow": structure},
    )


def load(folder: str | Path, *, device: torch.device | str = "cpu") -> EquivariantFlow:
    """The flow that :func:`save` wrote into a folder, in evaluation mode.

    Nothing in the files is executed or unpickled.

    Args:
        folder: The folder.
        device: The device of the flow.

    Raises:
        ValueError: If a file is missing, truncated or damaged, if the two files are not of one model, or if a later
            version of the package wrote them.

    Warns:
        UserWarning: If the files are of an earlier version and do not contain everything that the weights depend on.

    Example:
        >>> import tempfile
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)]).eval()
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     save(flow, folder)
        ...     again = load(folder)
        >>> x = torch.randn(5, 2)
        >>> torch.equal(again.dist.log_prob(x), flow.dist.log_prob(x))
        True
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
    """The tensors of the modules that files of a format do not contain.

    The class of such a module says in ``since_format`` which format contains it first. The module gets its tensors from
    its description, which was migrated.
    """
    newer: dict[str, Tensor] = {}
    for name, module in flow.named_modules():
        if getattr(module, "since_format", 1) > version:
            newer.update(module.state_dict(prefix=f"{name}."))
    return newer


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
