"""Tensors that are made once and kept."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import torch
from torch import Tensor

__all__ = ["as_constants", "rows_at"]


@contextlib.contextmanager
def as_constants() -> Iterator[None]:
    """A context in which tensors are made outside of all autograd modes, so that a cache may keep them.

    A tensor that is made inside a transform of ``torch.func`` is an error outside of it, and a tensor that is made in
    inference mode cannot be used where gradients are recorded. Code inside this context must not read tensors of the
    surrounding call.

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


def rows_at(table: Tensor, index: Tensor) -> Tensor:
    """The rows ``table[index]``, also under ``vmap`` with an index that is a single integer in each mapped row.

    Args:
        table: A tensor whose first dimension is indexed.
        index: Integers of any shape.

    Example:
        >>> torch.func.vmap(lambda index: rows_at(torch.eye(2), index))(torch.tensor([1, 0])).tolist()
        [[0.0, 1.0], [1.0, 0.0]]
    """
    return table.index_select(0, index.reshape(-1)).reshape(index.shape + table.shape[1:])
