"""Reader of IDX files, the format in which MNIST was published."""

from __future__ import annotations

import gzip
import math
import struct
from pathlib import Path

import torch
from torch import Tensor

__all__ = ["read_idx"]

_UNSIGNED_BYTES = 8


def read_idx(path: str | Path) -> Tensor:
    """Read the array of bytes (uint8) of an IDX file.

    The file begins with two zero bytes, the type of the entries, the rank and each size as a big-endian 32-bit integer;
    the entries follow.

    Args:
        path: The file; it is gzipped if its name ends in ``.gz``.

    Raises:
        ValueError: If the file is not of this form, holds entries of another type than bytes, or is cut short.

    Source:
        The MNIST database, http://yann.lecun.com/exdb/mnist.
    """
    path = Path(path)
    try:
        raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError) as error:
        raise ValueError(f"cannot read {path}: {error}") from error
    if len(raw) < 4 or raw[:2] != b"\0\0" or raw[2] != _UNSIGNED_BYTES:
        raise ValueError(
            f"{path} is no IDX file of bytes: it begins with {raw[:4].hex()}, expected 000008 and the rank"
        )
    start = 4 + 4 * raw[3]
    if len(raw) < start:
        raise ValueError(f"{path} is cut short: it has {len(raw)} bytes, and its header alone needs {start}")
    shape = struct.unpack(f">{raw[3]}I", raw[4:start])
    if len(raw) != start + math.prod(shape):
        raise ValueError(f"{path}: expected {math.prod(shape)} bytes for the shape {shape}, got {len(raw) - start}")
    return torch.frombuffer(bytearray(raw[start:]), dtype=torch.uint8).reshape(shape)
