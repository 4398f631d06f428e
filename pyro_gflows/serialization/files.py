"""Atomic reading and writing of JSON and safetensors files; nothing in them is pickled.

After an interruption a file has either its old content or its new content, never a part of each.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

__all__ = ["check_writable", "read_json", "read_tensors", "write_json", "write_tensors"]


def check_writable(folder: str | Path) -> Path:
    """Create a folder if it does not exist, check that files can be written to it, and return it.

    Args:
        folder: The folder.

    Raises:
        ValueError: If the folder cannot be created or written to.
    """
    folder = Path(folder)
    probe = folder / f".probe-{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as error:
        raise ValueError(f"cannot write to the output folder {folder}: {error.strerror}; choose another one") from error
    return folder


def _write(path: Path, content: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    # The rename is durable only once the folder is on disk; not every system can sync a folder.
    with contextlib.suppress(OSError):
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file atomically.

    Args:
        path: The file.
        content: A JSON object; values that are not finite are refused.
    """
    _write(path, (json.dumps(content, indent=2, allow_nan=False) + "\n").encode())


def write_tensors(path: Path, tensors: Mapping[str, Tensor], description: Mapping[str, Any]) -> None:
    """Write tensors and a JSON description as one safetensors file, atomically.

    Args:
        path: The file.
        tensors: The tensors by name.
        description: A JSON object.
    """
    # safetensors refuses tensors that share memory, as views and tied buffers do, so copies are stored.
    copies = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    _write(path, safetensors.torch.save(copies, {"description": json.dumps(description, allow_nan=False)}))


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Args:
        path: The file.

    Raises:
        ValueError: If there is no such file, or it is not a complete JSON object; the file is left as it is.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(content, dict):
        raise ValueError(f"cannot read {path}: expected a JSON object, found {type(content).__name__}")
    return content


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read a file of :func:`write_tensors`: the tensors, on the CPU, and the description.

    Args:
        path: The file.

    Raises:
        ValueError: If there is no such file, or it is truncated or of another kind; the file is left as it is.
    """
    try:
        with safe_open(path, framework="pt") as file:
            description = json.loads((file.metadata() or {})["description"])
            return {name: file.get_tensor(name) for name in file.keys()}, description  # noqa: SIM118 (not a dict)
    except (OSError, SafetensorError, ValueError) as error:
        raise _unreadable(path, error) from error
    except KeyError as error:
        raise ValueError(f"cannot read {path}: it was not written by pyro_gflows (no description in it)") from error


def _unreadable(path: Path, error: Exception) -> ValueError:
    if not path.exists():
        return ValueError(f"no such file: {path}")
    return ValueError(f"cannot read {path}: truncated or damaged ({error}); it was left as it is")
