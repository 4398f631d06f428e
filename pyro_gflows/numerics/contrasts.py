"""Orthonormal coordinates of vectors of sum 0, applied by cumulative sums."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["contrasts", "from_contrasts"]


def contrasts(x: Tensor, dim: int = -1) -> Tensor:
    r"""The coordinates H x of vectors in Helmert's orthonormal basis of the vectors whose entries sum to 0.

    They compare each entry with the mean of the entries before it, so they are 0 for a constant vector.

    .. math:: (H x)_k = \frac{x_1 + \dots + x_k - k\,x_{k+1}}{\sqrt{k (k + 1)}}, \qquad k = 1, \dots, n - 1

    The matrix H is never built: the cost grows linearly with n.

    Args:
        x: Vectors of n entries along a dimension.
        dim: That dimension.

    Returns:
        The n - 1 coordinates along the same dimension.

    Example:
        >>> contrasts(torch.tensor([1.0, 1.0, 1.0])).tolist()
        [0.0, 0.0]
        >>> contrasts(torch.tensor([1.0, -1.0])).tolist()
        [1.4142135381698608]
    """
    x = x.movedim(dim, -1)
    x = x - x.mean(-1, keepdim=True)  # so that no digits are lost where the mean is large
    count = torch.arange(1, x.shape[-1], dtype=x.dtype, device=x.device)
    y = (x.cumsum(-1)[..., :-1] - count * x[..., 1:]) / (count * (count + 1)).sqrt()
    return y.movedim(-1, dim)


def from_contrasts(y: Tensor, dim: int = -1) -> Tensor:
    r"""The vectors :math:`H^T y` of sum 0 with coordinates y, which inverts :func:`contrasts` on vectors of sum 0.

    Args:
        y: The n - 1 coordinates along a dimension.
        dim: That dimension.

    Returns:
        The n entries along the same dimension.

    Example:
        >>> x = from_contrasts(torch.tensor([1.0, 2.0]))
        >>> bool(x.sum().abs() < 1e-6), contrasts(x).round(decimals=4).tolist()
        (True, [1.0, 2.0])
    """
    y = y.movedim(dim, -1)
    count = torch.arange(1, y.shape[-1] + 1, dtype=y.dtype, device=y.device)
    weighted = y / (count * (count + 1)).sqrt()
    later = weighted.flip(-1).cumsum(-1).flip(-1)  # the sum over this and all later coordinates
    zero = y.new_zeros(*y.shape[:-1], 1)
    x = torch.cat([later, zero], -1) - torch.cat([zero, count * weighted], -1)
    return x.movedim(-1, dim)
