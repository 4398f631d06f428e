"""The pieces of circular splines from unconstrained parameters, and parameters that a reflection reverses."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pyro_gflows.nn.knots import Knots

__all__ = ["circular_pieces", "mirrored"]


def circular_pieces(knots: Knots, widths: Tensor, heights: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The widths, heights and slopes of a circular spline of K pieces from unconstrained parameters.

    They are those of a spline on an interval, except that the last knot is the first one, so that both ends have one
    slope, which depends on the pieces on both sides of the seam.

    Args:
        knots: How parameters become widths, heights and slopes.
        widths: Parameters of the widths, shape ``(..., K)``.
        heights: Parameters of the heights, shape ``(..., K)``.
        slopes: Parameters of the slopes at the first K knots, shape ``(..., K)``.

    Returns:
        The shares of the widths and of the heights, and the slopes at the first K knots, each of shape ``(..., K)``.

    Example:
        >>> from pyro_gflows.nn import BoundedKnots
        >>> heights = torch.tensor([9.0, 0.0, 0.0, 0.0])
        >>> sizes = circular_pieces(BoundedKnots(), torch.zeros(4), heights, torch.zeros(4))
        >>> sizes[2][0] == sizes[2][1]  # the steep first piece is beside the first knot and the second one
        tensor(True)
    """
    width_shares = knots.widths(widths)
    height_shares = knots.heights(heights, width_shares)
    secants = height_shares / width_shares
    # one piece more at each end makes the seam an inner knot
    around = torch.cat([secants[..., -1:], secants, secants[..., :1]], -1)
    raw = functional.pad(torch.cat([slopes, slopes[..., :1]], -1), (1, 1))
    return width_shares, height_shares, knots.slopes(raw, around)[..., 1:-2]


def mirrored(even: Tensor, odd: Tensor) -> Tensor:
    """The parameters of knots on both sides of 0: e + o on the right, and e - o on the left in reversed order.

    If o changes its sign, the result is reversed: a reflection of the axis leaves e unchanged, changes the sign of o,
    and so reflects the knots. Where e has one entry more than o, its first entry is the knot at 0.

    Args:
        even: The part e, shape ``(..., n)``.
        odd: The part o, shape ``(..., n)`` or ``(..., n - 1)``.

    Returns:
        Shape ``(..., 2 n)`` or ``(..., 2 n - 1)``.

    Example:
        >>> mirrored(torch.tensor([5.0, 2.0]), torch.tensor([1.0]))
        tensor([1., 5., 3.])
    """
    center = even.shape[-1] - odd.shape[-1]
    odd = functional.pad(odd, (center, 0))
    return torch.cat([(even - odd)[..., center:].flip(-1), even + odd], -1)
