"""Means over rows, and how many rows there are."""

from __future__ import annotations

from torch import Tensor

__all__ = ["mean_over_rows", "row_count"]


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


def row_count(rows: Tensor, mask: Tensor | None = None) -> int | Tensor:
    """The number of rows, or of the rows that a mask keeps, but at least 1.

    Args:
        rows: Features of rows, of shape ``batch + (n, F)``.
        mask: Which rows are there, a boolean tensor of shape ``batch + (n,)``; None where all are.

    Returns:
        n; with a mask, the numbers in the dtype of the features, of shape ``batch + (1,)``.

    Example:
        >>> import torch
        >>> row_count(torch.zeros(3, 2)), row_count(torch.zeros(3, 2), torch.tensor([True, True, False]))
        (3, tensor([2.]))
    """
    if mask is None:
        return rows.shape[-2]
    return mask.sum(-1, keepdim=True).clamp_min(1).to(rows.dtype)
