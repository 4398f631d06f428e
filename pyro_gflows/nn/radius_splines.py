"""Increasing splines of a radius, which stretch a vector along itself."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pyro_gflows.nn.knots import Knots
from pyro_gflows.nn.radial import safe_norm
from pyro_gflows.numerics import rational_quadratic

__all__ = ["radius_knots", "stretched"]

_AtKnots = tuple[Tensor, ...]


def radius_knots(raw: Tensor, knots: Knots, limit: float) -> tuple[Tensor, Tensor, Tensor]:
    """Positions, values and slopes at the knots of increasing splines with value 0 at 0.

    Args:
        raw: Unconstrained parameters of K pieces, shape ``(..., 3 K + 2)``: K for the widths, K for the heights, K + 1
            for the slopes, and one for the height of the last knot. All 0 is the identity.
        knots: How they become widths, heights and slopes.
        limit: The position of the last knot.

    Returns:
        Three tensors of shape ``(..., K + 1)``.

    Example:
        >>> from pyro_gflows.nn import BoundedKnots
        >>> radius_knots(torch.zeros(8), BoundedKnots(), 4.0)[0].tolist()
        [0.0, 2.0, 4.0]
    """
    bins = (raw.shape[-1] - 2) // 3
    widths, heights, slopes, log_height = raw.split([bins, bins, bins + 1, 1], -1)
    width_shares = knots.widths(widths)
    height_shares = knots.heights(heights, width_shares)
    width, height = limit * torch.ones_like(log_height), limit * knots.log_height(log_height).exp()
    grids = []
    for shares, end in ((width_shares, width), (height_shares, height)):
        inner = functional.pad(shares.cumsum(-1)[..., :-1], (1, 0))
        grids.append(torch.cat([inner * end, end], -1))  # the last knot exactly at the end
    secants = (height_shares * height) / (width_shares * width)
    return grids[0], grids[1], knots.slopes(slopes, secants)


def stretched(x: Tensor, at_knots: _AtKnots, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    r"""Vectors whose radius r is replaced by R(r), and the log-det.

    .. math:: y = \frac{x}{r} R(r), \qquad \log|\det J| = \log R'(r) + (d - 1) \log\frac{R(r)}{r}

    Args:
        x: Vectors, shape ``(..., d)``.
        at_knots: Positions, values and slopes of R at the knots, each of shape ``(K + 1,)`` or ``(..., K + 1)``.
        inverse: Whether to compute the inverse.

    Example:
        >>> from pyro_gflows.nn import BoundedKnots
        >>> x = torch.tensor([3.0, 4.0])
        >>> stretched(x, radius_knots(torch.zeros(8), BoundedKnots(), 4.0))
        (tensor([3., 4.]), tensor(0.))
    """
    radius = safe_norm(x)
    image, log_slope = _spline(radius, *at_knots, inverse=inverse)
    across = (x.shape[-1] - 1) * (image.log() - radius.log())
    return x * (image / radius), (log_slope + across).squeeze(-1)


def _spline(r: Tensor, position: Tensor, value: Tensor, slope: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """The spline (or its inverse) at r >= 0, and the log of its slope there."""
    grid = value if inverse else position
    bins = grid.shape[-1] - 1
    knots = grid.detach().contiguous()
    index = (torch.searchsorted(knots, r.detach().contiguous(), right=True) - 1).clamp(0, bins - 1)
    starts = [position[..., :-1], value[..., :-1], position.diff(), value.diff(), slope[..., :-1], slope[..., 1:]]
    table = torch.stack(starts, -1)
    chosen = table[index] if table.ndim == 2 else torch.take_along_dim(table, index[..., None], -2)
    left, bottom, width, height, start, end = chosen.unbind(-1)
    return rational_quadratic(r, (left, bottom), (width, height), (start, end), inverse=inverse)
