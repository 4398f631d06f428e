"""The mean over rows, in one place."""

from __future__ import annotations

from torch import Tensor

__all__ = ["mean_over_rows"]


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
