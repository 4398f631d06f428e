"""The mean over rows, and their number, in one place."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

__all__ = ["mean_over_rows", "rows_there"]


def mean_over_rows(x: Tensor, mask: Tensor | None = None) -> Tensor:
    """The mean of the features over the rows, or over the rows that a mask keeps.

    Args:
        x: Features of rows, of shape ``batch + (n, F)``.
        mask: Which rows are there, a boolean tensor of shape ``batch + (n,)``; None where all are.

    Returns:
        Shape ``batch + (F,)``; 0 where a mask keeps no row.

    Example:
        >>> import torch
        >>> x = torch.tensor([[1.0], [3.0], [8.0]])
        >>> mean_over_rows(x).tolist(), mean_over_rows(x, torch.tensor([True, True, False])).tolist()
        ([4.0], [2.0])
    """
    if mask is None:
        return x.mean(-2)
    there = mask[..., None].to(x.dtype)
    return (x * there).sum(-2) / there.sum(-2).clamp_min(1)


def rows_there(sizes: Sequence[int], mask: Tensor | None, like: Tensor) -> tuple[int | Tensor, ...]:
    """The number of rows of each block, or with a mask the number of those that it keeps, and 1 where it keeps none.

    Args:
        sizes: The number of rows of each block.
        mask: Which rows are there, a boolean tensor of shape ``batch + (n,)``, for one block; None where all are.
        like: A tensor of the dtype of the result.

    Returns:
        Whole numbers without a mask, else tensors of shape ``batch + (1,)``.

    Example:
        >>> import torch
        >>> like, mask = torch.zeros(()), torch.tensor([True, False, True])
        >>> rows_there((3,), None, like), rows_there((3,), mask, like)
        ((3,), (tensor([2.]),))
    """
    if mask is None:
        return tuple(sizes)
    return (mask.sum(-1, keepdim=True).clamp_min(1).to(like.dtype),) * len(sizes)
