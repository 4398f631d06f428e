"""One piece of a monotone rational-quadratic spline, its inverse, and its straight continuation."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["rational_quadratic"]


def rational_quadratic(
    x: Tensor,
    corner: tuple[Tensor, Tensor],
    size: tuple[Tensor, Tensor],
    slopes: tuple[Tensor, Tensor],
    *,
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""The piece from one knot to the next at x, or its inverse at x, and the log of the slope there.

    With the offset :math:`\xi = (x - x_0)/w`, the secant :math:`s = h/w` and the slopes :math:`d_0, d_1` at the knots,

    .. math:: y = y_0 + h\,\frac{s\,\xi^2 + d_0\,\xi(1-\xi)}{s + (d_0 + d_1 - 2s)\,\xi(1-\xi)}

    which increases from knot to knot. Beyond a knot it goes on as the tangent there, so that a spline's outer pieces
    are its linear tails. The inverse is a root of a quadratic, in the form that does not cancel.

    Arguments (all of them broadcast):
        x: points; of the inverse, values.
        corner: the left knot (x_0, y_0).
        size: width w > 0 and height h > 0 of the piece.
        slopes: d_0 > 0 and d_1 > 0.
        inverse: the inverse, and the log of its slope.

    Source: Neural Spline Flows, arXiv:1906.04032; Gregory & Delbourgo (1982).

    Example:
        >>> one, two = torch.tensor(1.0), torch.tensor(2.0)
        >>> piece = (0 * one, one), (two, one), (one, two)
        >>> y, log_slope = rational_quadratic(torch.tensor([0.0, 0.5, 2.0, 3.0]), *piece)
        >>> y
        tensor([1.0000, 1.2500, 2.0000, 4.0000])
        >>> rational_quadratic(y, *piece, inverse=True)[0]
        tensor([0.0000, 0.5000, 2.0000, 3.0000])
    """
    (left, bottom), (width, height), (start, end) = corner, size, slopes
    secant = height / width
    curvature = start + end - 2 * secant
    if inverse:
        rise = (x - bottom).clamp_min(0)
        a = height * (secant - start) + rise * curvature
        b = height * start - rise * curvature
        c = -secant * rise
        fraction = (2 * c / (-b - (b.square() - 4 * a * c).clamp_min(0).sqrt())).clamp(0, 1)
    else:
        fraction = ((x - left) / width).clamp(0, 1)
    product = fraction * (1 - fraction)
    denominator = secant + curvature * product
    log_slope = (
        2 * secant.log()
        + (end * fraction.square() + 2 * secant * product + start * (1 - fraction).square()).log()
        - 2 * denominator.log()
    )
    right, top = left + width, bottom + height
    if inverse:
        below, above = x < bottom, x > top
        image = torch.where(below, left + (x - bottom) / start, left + width * fraction)
        return torch.where(above, right + (x - top) / end, image), -log_slope
    below, above = x < left, x > right
    image = bottom + height * (secant * fraction.square() + start * product) / denominator
    image = torch.where(below, bottom + (x - left) * start, image)
    return torch.where(above, top + (x - right) * end, image), log_slope
