"""Tensors that are made once and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch

__all__ = ["as_constants"]


@contextlib.contextmanager
def as_constants() -> Iterator[None]:
    """Inside, tensors are made outside of all modes, for a cache that may be asked first under any of them.

    A tensor that is made inside a transform of ``torch.func`` belongs to it, and is an error elsewhere; one that is
    made in inference mode cannot be used where gradients are recorded. What is inside must read no tensor of the call.

    Example:
        >>> kept = {}
        >>> def double(x):
        ...     with as_constants():
        ...         kept.setdefault("two", torch.tensor(2.0))
        ...     return kept["two"] * x
        >>> torch.func.vmap(torch.func.grad(double))(torch.ones(3)), double(torch.ones(2))
        (tensor([2., 2., 2.]), tensor([2., 2.]))
    """
    with torch._C._DisableFuncTorch(), torch.inference_mode(False), torch.no_grad():
        yield
