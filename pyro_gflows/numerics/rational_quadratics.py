"""Monotone rational-quadratic splines: one piece, its inverse and linear continuation, and all pieces in a row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["monotone_spline", "rational_quadratic"]


def rational_quadratic(
    x: Tensor,
    corner: tuple[Tensor, Tensor],
    size: tuple[Tensor, Tensor],
    slopes: tuple[Tensor, Tensor],
    *,
    inverse: bool = False,
) -> tuple[Tensor, Tensor]:
    r"""The value at x of a spline piece between two knots, or of its inverse, and the logarithm of the slope there.

    Such pieces make an increasing function with an exact inverse and a continuous derivative. With the offset
    :math:`\xi = (x - x_0)/w`, the secant :math:`s = h/w` and the slopes :math:`d_0, d_1` at the knots, the piece is

    .. math:: y = y_0 + h\,\frac{s\,\xi^2 + d_0\,\xi(1-\xi)}{s + (d_0 + d_1 - 2s)\,\xi(1-\xi)}

    which increases from knot to knot. Beyond a knot it continues as the tangent, so that the outer pieces of a spline
    become its linear tails. For the inverse, write :math:`\bar\xi = 1 - \xi`, :math:`\eta = (y - y_0)/h`,
    :math:`\bar\eta = 1 - \eta` and :math:`\delta_i = d_i / s`. Then :math:`t = \xi/\bar\xi` is the positive root of
    :math:`\bar\eta\,t^2 + (\bar\eta\,\delta_0 - \eta\,\delta_1)\,t - \eta = 0`. The discriminant is a sum of positive
    terms, and the form of the root is chosen by the sign of the middle coefficient, so that no digits are lost by
    cancellation.

    Args:
        x: Points, or for the inverse values.
        corner: The left knot (x_0, y_0).
        size: The width w > 0 and the height h > 0 of the piece.
        slopes: The slopes d_0 > 0 and d_1 > 0 at the two knots.
        inverse: Whether to compute the inverse.

    Returns:
        The value, and the logarithm of the slope of the map that was computed (of the inverse, where that was asked
        for). All arguments broadcast, and both have the broadcast shape.

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
    whole = height if inverse else width
    distance, rest = _both_sides(x, bottom if inverse else left, whole)
    # each share is computed by itself: 1 minus the other would lose the small ones to rounding
    before, after = _within(distance / whole), _within(rest / whole)
    if inverse:
        before, after = _across(before, after, start_ratio, end_ratio)
    product = before * after
    denominator = before.square() + (start_ratio + end_ratio) * product + after.square()
    numerator = end_ratio * before.square() + 2 * product + start_ratio * after.square()
    log_slope = secant.log() + numerator.log() - 2 * denominator.log()
    if inverse:
        image = torch.where(distance < 0, left + distance / start, left + width * before)
        return torch.where(rest < 0, left + width - rest / end, image), -log_slope
    image = bottom + height * (before.square() + start_ratio * product) / denominator
    image = torch.where(distance < 0, bottom + distance * start, image)
    return torch.where(rest < 0, bottom + height - rest * end, image), log_slope


def monotone_spline(
    x: Tensor, start: float, sizes: tuple[Tensor, Tensor], slopes: Tensor, *, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    """The value at x of an increasing spline of K pieces, or of its inverse, and the logarithm of the slope there.

    The first knot is the point (start, start). Each piece is a :func:`rational_quadratic`, so the spline has a
    continuous derivative, and it continues in straight lines beyond the first and the last knot.

    Args:
        x: Points, or for the inverse values; one for each spline.
        start: Both coordinates of the first knot.
        sizes: The widths and the heights of the pieces, each positive, of shape ``x.shape + (K,)``.
        slopes: The slopes at the knots, each positive, of shape ``x.shape + (K + 1,)``.
        inverse: Whether to compute the inverse.

    Returns:
        The value, and the logarithm of the slope of the map that was computed, both of the shape of x.

    Example:
        >>> widths, heights = torch.tensor([1.0, 1.0]), torch.tensor([0.5, 1.5])
        >>> monotone_spline(torch.tensor(0.0), -1.0, (widths, heights), torch.ones(3))[0]
        tensor(-0.5000)
    """
    ends = [functional.pad(size.cumsum(-1)[..., :-1], (1, 0)) + start for size in sizes]
    piece = (x[..., None] >= ends[1 if inverse else 0][..., 1:]).sum(-1)
    table = torch.stack([*ends, *sizes, slopes[..., :-1], slopes[..., 1:]], -2)
    chosen = torch.take_along_dim(table, piece[..., None, None], -1).squeeze(-1)
    left, bottom, width, height, first, last = chosen.unbind(-1)
    return rational_quadratic(x, (left, bottom), (width, height), (first, last), inverse=inverse)


def _within(share: Tensor) -> Tensor:
    """The share clamped to [0, 1], with derivative 1 at both ends (with ``clamp`` this depends on torch's version)."""
    share = torch.where(share < 0, 0.0, share)
    return torch.where(share > 1, 1.0, share)


def _both_sides(x: Tensor, start: Tensor, size: Tensor) -> tuple[Tensor, Tensor]:
    """The distances x - start and start + size - x; the second avoids the rounding error of the first.

    Near the end of the piece, this rounding error would be all that remains of the second distance.
    """
    distance = x - start
    with torch.no_grad():  # the exact rounding error of the difference (Knuth's two-sum)
        back = distance - x
        rounded = (x - (distance - back)) - (start + back)
    return distance, (size - distance) - rounded.nan_to_num()  # infinite points have no such error


def _across(below: Tensor, above: Tensor, start: Tensor, end: Tensor) -> tuple[Tensor, Tensor]:
    """The shares of the width on both sides of a value, from those of the height; slopes in units of the secant."""
    middle = above * start - below * end
    # tiny keeps a gradient of the root where everything else underflows
    root = (middle.square() + 4 * below * above + torch.finfo(middle.dtype).tiny).sqrt()
    rising = middle >= 0
    sum_of_two = root + middle.abs()
    before = torch.where(rising, 2 * below, sum_of_two)
    after = torch.where(rising, sum_of_two, 2 * above)
    return before / (before + after), after / (before + after)
