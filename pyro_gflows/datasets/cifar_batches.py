"""Reader of the "Python version" of CIFAR-10: six pickles, of which nothing but arrays is unpickled."""

from __future__ import annotations

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["read_cifar_batch"]

# A dictionary of bytes, lists and an array of bytes needs no more than these; anything else is refused.
_ALLOWED = {
    ("numpy", "dtype"),
    ("numpy", "ndarray"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("_codecs", "encode"),
}


class _ArraysOnly(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a batch of images does not need")
        return super().find_class(module, name)


def read_cifar_batch(path: str | Path) -> tuple[Tensor, Tensor]:
    """Return the images (uint8, shape ``(n, 3, 32, 32)``) and the labels of one batch file.

    Args:
        path: One of the files ``data_batch_1``, ..., ``data_batch_5`` and ``test_batch``.

    Raises:
        ValueError: If the file is no such batch, or a pickle that asks for more than arrays.

    Source:
        The CIFAR-10 data set, https://www.cs.toronto.edu/~kriz/cifar.html.
    """
    path = Path(path)
    try:
        batch = _ArraysOnly(io.BytesIO(path.read_bytes()), encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"]), batch[b"labels"]
    except (OSError, EOFError, KeyError, TypeError, AttributeError, ValueError, pickle.UnpicklingError) as error:
        raise ValueError(f"cannot read {path} as a batch of CIFAR-10: {error}") from error
    if pixels.dtype != np.uint8 or pixels.ndim != 2 or pixels.shape[1] != 3072 or len(labels) != len(pixels):
        raise ValueError(
            f"{path}: expected bytes of shape (n, 3072) and n labels, got {pixels.dtype} {pixels.shape} and "
            f"{len(labels)}"
        )
    return torch.from_numpy(pixels.copy()).reshape(-1, 3, 32, 32), torch.tensor(labels)
