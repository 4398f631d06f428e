"""The pieces of circular splines from unconstrained parameters."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pyro_gflows.nn.knots import Knots

__all__ = ["circular_pieces", "mean_displacement"]


def circular_pieces(
    knots: Knots, widths: Tensor, heights: Tensor, slopes: Tensor, *, sectors: int = 1
) -> tuple[Tensor, Tensor, Tensor]:
    """The widths, heights and slopes of a circular spline of K pieces from unconstrained parameters.

    They are those of a spline on an interval, except that the last knot is the first one, so that both ends have one
    slope, which depends on the pieces on both sides of the seam. If the parameters are reversed, or shifted by K /
    ``sectors`` places, the pieces are.

    Args:
        knots: How parameters become widths, heights and slopes.
        widths: Parameters of the widths, shape ``(..., K)``.
        heights: Parameters of the heights, shape ``(..., K)``.
        slopes: Parameters of the slopes at the first K knots, shape ``(..., K)``.
        sectors: The number of equal sectors of the circle, at whose ends there are knots; a divisor of K.

    Returns:
        The shares of the widths and of the heights, and the slopes at the first K knots, each of shape ``(..., K)``.

    Example:
        >>> from pyro_gflows.nn import BoundedKnots
        >>> heights = torch.tensor([9.0, 0.0, 0.0, 0.0])
        >>> sizes = circular_pieces(BoundedKnots(), torch.zeros(4), heights, torch.zeros(4))
        >>> sizes[2][0] == sizes[2][1]  # the steep first piece is beside the first knot and the second one
        tensor(True)
    """
    width_shares = knots.widths(widths.unflatten(-1, (sectors, -1))).flatten(-2) / sectors
    height_shares = knots.heights(heights, width_shares)
    secants = height_shares / width_shares
    # one piece more at each end makes the seam an inner knot
    around = torch.cat([secants[..., -1:], secants, secants[..., :1]], -1)
    raw = functional.pad(torch.cat([slopes, slopes[..., :1]], -1), (1, 1))
    return width_shares, height_shares, knots.slopes(raw, around)[..., 1:-2]


def mean_displacement(heights: Tensor, sectors: int) -> Tensor:
    r"""By how much a circular spline that maps :math:`-\pi` to itself displaces the ends of the sectors on average.

    The spline minus this displacement does not depend on the sector at which one begins to add heights.

    Args:
        heights: The shares of the heights, shape ``(..., K)``.
        sectors: The number of equal sectors of the circle; a divisor of K.

    Returns:
        Angles in radians, shape ``(...)``.

    Example:
        >>> mean_displacement(torch.tensor([0.25, 0.75]), 2) / torch.pi  # 0 is displaced to -pi / 2
        tensor(-0.2500)
    """
    after = heights.unflatten(-1, (sectors, -1)).sum(-1).cumsum(-1)
    # the last sector ends where the first one begins, and is not displaced
    expected = torch.linspace(1 / sectors, 1.0, sectors, dtype=heights.dtype, device=heights.device)
    return 2 * torch.pi * (after - expected).mean(-1)
