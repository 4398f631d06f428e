"""Circular splines: rational-quadratic splines that map the circle to itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.numerics.rational_quadratics import monotone_spline

__all__ = ["circular_spline"]

_PERIOD = 2 * math.pi


def circular_spline(
    x: Tensor, sizes: tuple[Tensor, Tensor], slopes: Tensor, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    r"""The value at x of an increasing spline of the circle with K pieces, or of its inverse, and the log-slope there.

    A map of angles is a function S of the real line with :math:`S(x + 2\pi) = S(x) + 2\pi`. Here it is an increasing
    spline on :math:`[-\pi, \pi]` that maps :math:`-\pi` to itself, repeated in this way. The slope at the last knot is
    the slope at the first one, so that the derivative is continuous at the seam as well. Every real number is an
    angle, and the value lies in the same period as x: in :math:`[-\pi + 2\pi n, \pi + 2\pi n]` for the same integer n.

    Args:
        x: Angles in radians, or for the inverse values; one for each spline.
        sizes: The widths and the heights of the pieces as shares of the circle, of shape ``x.shape + (K,)``; each is
            positive, and they sum to one.
        slopes: The slopes at the first K knots, each positive, of shape ``x.shape + (K,)``.
        inverse: Whether to compute the inverse.

    Returns:
        The value, and the logarithm of the slope of the map that was computed, both of the shape of x.

    Source: Normalizing Flows on Tori and Spheres, arXiv:2002.02428.

    Example:
        >>> sizes = torch.tensor([0.5, 0.5]), torch.tensor([0.25, 0.75])
        >>> x = torch.tensor([-math.pi, 0.0, math.pi])
        >>> circular_spline(x, (sizes[0].expand(3, 2), sizes[1].expand(3, 2)), torch.ones(3, 2))[0] / math.pi
        tensor([-1.0000, -0.5000,  1.0000])
    """
    widths, heights = (_PERIOD * size for size in sizes)
    around = _PERIOD * ((x.detach() + math.pi) / _PERIOD).floor()
    slopes = torch.cat([slopes, slopes[..., :1]], -1)
    value, log_slope = monotone_spline(x - around, -math.pi, (widths, heights), slopes, inverse=inverse)
    return value + around, log_slope
