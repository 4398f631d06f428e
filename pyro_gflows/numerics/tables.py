"""Rows and columns of tables in another order, for each table of a batch."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["take_columns", "take_rows"]


def take_rows(tables: Tensor, index: Tensor) -> Tensor:
    """The rows of tables in the order of their indices.

    Args:
        tables: Tables, shape ``batch + (n, width)``.
        index: The index of the row at each place, shape ``batch + (n,)``; the batch shapes broadcast.

    Example:
        >>> take_rows(torch.eye(2), torch.tensor([[0, 1], [1, 0]])).tolist()
        [[[1.0, 0.0], [0.0, 1.0]], [[0.0, 1.0], [1.0, 0.0]]]
    """
    batch = torch.broadcast_shapes(tables.shape[:-2], index.shape[:-1])
    shape = (*batch, *tables.shape[-2:])
    return tables.expand(shape).gather(-2, index[..., None].expand(shape))


def take_columns(tables: Tensor, index: Tensor) -> Tensor:
    """The columns of tables in the order of their indices.

    Args:
        tables: Tables, shape ``batch + (n, width)``.
        index: The index of the column at each place, shape ``batch + (width,)``; the batch shapes broadcast.

    Example:
        >>> take_columns(torch.tensor([[1.0, 2.0]]), torch.tensor([1, 0])).tolist()
        [[2.0, 1.0]]
    """
    return take_rows(tables.mT, index).mT
