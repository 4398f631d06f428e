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
    are its linear tails. With the shares :math:`\xi : \bar\xi` of the width and :math:`\eta : \bar\eta` of the height on
    both sides of the point, and the slopes in units of the secant, the odds :math:`t = \xi/\bar\xi` are the positive root
    of :math:`\bar\eta\,t^2 + (\bar\eta\,d_0 - \eta\,d_1)\,t - \eta = 0`. Its discriminant is a sum of positive terms, and of the
    two forms of the root the sign of the middle coefficient chooses the one without a difference.

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
    start_ratio, end_ratio = start / secant, end / secant
    if inverse:
        below, above = _shares(x - bottom, height)
        before, after = _odds(below, above, start_ratio, end_ratio)
    else:
        before, after = _shares(x - left, width)
    product = before * after
    denominator = before.square() + (start_ratio + end_ratio) * product + after.square()
    numerator = end_ratio * before.square() + 2 * product + start_ratio * after.square()
    log_slope = secant.log() + numerator.log() - 2 * denominator.log()
    right, top = left + width, bottom + height
    if inverse:
        image = torch.where(x < bottom, left + (x - bottom) / start, left + width * before)
        return torch.where(x > top, right + (x - top) / end, image), -log_slope
    image = bottom + height * (before.square() + start_ratio * product) / denominator
    image = torch.where(x < left, bottom + (x - left) * start, image)
    return torch.where(x > right, top + (x - right) * end, image), log_slope


def _shares(distance: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """What lies before a point and after it, as shares of the whole; neither is 1 minus the other rounded."""
    return (distance / size).clamp(0, 1), ((size - distance) / size).clamp(0, 1)


def _odds(below: Tensor, above: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of the width before and after a value, from the shares of the height; slopes in units of the secant."""
    middle = above * start - below * end
    # tiny: where all else underflows, the root must still have a gradient
    root = (middle.square() + 4 * below * above + torch.finfo(middle.dtype).tiny).sqrt()
    rising = middle >= 0
    sum_of_two = root + middle.abs()
    before = torch.where(rising, 2 * below, sum_of_two)
    after = torch.where(rising, sum_of_two, 2 * above)
    return before / (before + after), after / (before + after)
