r"""A positive coordinate as the quantile of a normal distribution truncated at 0, accurate up to the wall at 0.

Let a be the mean of a normal distribution in units of its standard deviation, of either sign. The map from a real
coordinate u to a gap d > 0 is given by

.. math:: \Phi(d - a) - \Phi(-a) = \Phi(a)\,\Phi(u)

so that d has the normal distribution N(a, 1) truncated at 0 if u is standard normal. Far from the wall, d = a + u. Both
sides of the equation are formed in the logarithm: for u >= 0 as the probability of the upper tail, where
:math:`d = a - \Phi^{-1}(\Phi(a)\,\Phi(-u))`, and for u < 0 as an integral from the wall, which keeps all digits of
gaps that are much smaller than the rounding error of a.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.numerics.constants import as_constants
from pyro_gflows.numerics.log_normal_cdf import log_ndtr, log_ndtri, mills_ratio

__all__ = ["coordinate_of_gap", "gap_log_slope", "gap_of_coordinate"]

_LOG_HALF = -math.log(2.0)
_HALF_LOG_TWO_PI = 0.5 * math.log(2 * math.pi)
_NEWTON_STEPS = 4
_TINY_RATIO = 1e-6
_LARGEST = 1e15
_SMALLEST = {torch.float32: 1e-18, torch.float64: 1e-100}  # squares of the reciprocals are finite


def gap_of_coordinate(u: Tensor, ratio: Tensor) -> Tensor:
    r"""The gap d to a wall, in standard deviations, that belongs to a real coordinate u.

    Args:
        u: The coordinates.
        ratio: The ratio a of mean and standard deviation of the normal distribution that is truncated at 0; broadcasts
            with u. Below about -30 (-10 in float32) digits are lost.

    Returns:
        The gaps, which are not negative: they underflow to 0 where u is below about -38 (-14 in float32). First and
        second derivatives by u and by the ratio are exact.

    Example:
        >>> ratio = torch.tensor(20.0, dtype=torch.float64)
        >>> gap_of_coordinate(torch.tensor([-25.0, -1.0, 3.0]).double(), ratio)
        tensor([5.5365e-51, 1.9000e+01, 2.3000e+01], dtype=torch.float64)
    """
    return _Gap.apply(*torch.broadcast_tensors(u, ratio))  # type: ignore[no-untyped-call, no-any-return]


def coordinate_of_gap(gap: Tensor, ratio: Tensor) -> Tensor:
    """The real coordinate u of a gap d to a wall, in standard deviations: the inverse of :func:`gap_of_coordinate`.

    Args:
        gap: The gaps d >= 0. A gap of exactly 0, as keys have that tie by rounding, counts as a tiny positive gap.
        ratio: The ratio a; broadcasts with the gaps.

    Example:
        >>> ratio = torch.tensor(5.0)
        >>> coordinate_of_gap(torch.tensor([0.0, 1e-3, 6.0]), ratio)
        tensor([-10.1606,  -5.9326,   1.0000])
    """
    gap, ratio = torch.broadcast_tensors(gap, ratio)
    gap = gap.clamp(_SMALLEST.get(gap.dtype, torch.finfo(gap.dtype).tiny), _LARGEST)
    return _Coordinate.apply(gap, ratio)  # type: ignore[no-untyped-call, no-any-return]


def gap_log_slope(u: Tensor, gap: Tensor, ratio: Tensor) -> Tensor:
    r"""The logarithm of the derivative of the gap by its coordinate, :math:`\log(dd/du)`, in closed form.

    It is :math:`\log\varphi(u) - \log\varphi(d - a) + \log\Phi(a)`, so that the density of the gap, which adds
    :math:`\log\varphi(u)`, stays finite at the wall although u tends to minus infinity.

    Args:
        u: The coordinates.
        gap: Their gaps d.
        ratio: The ratio a.

    Example:
        >>> u, ratio = torch.tensor(2.0), torch.tensor(10.0)
        >>> gap_log_slope(u, gap_of_coordinate(u, ratio), ratio).abs().item() < 1e-5
        True
    """
    place = gap - ratio
    # above the median, where Phi(a - d) = Phi(a) Phi(-u), a form without squares, which cancel in the far tail
    above = mills_ratio(-place.clamp_min(0)).log() - mills_ratio(-u.clamp_min(0)).log()
    is_above = u > 0
    place, u = place.masked_fill(is_above, 0), u.masked_fill(is_above, 0)
    return torch.where(is_above, above, 0.5 * (place - u) * (place + u) + log_ndtr(ratio))


class _Gap(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(u: Tensor, ratio: Tensor) -> Tensor:
        whole = log_ndtr(ratio)
        above = ratio - log_ndtri(whole + log_ndtr(-u.clamp_min(0)))
        return torch.where(u < 0, _below_median(u.clamp_max(0), ratio, whole), above)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        by_u, by_ratio = _slopes(*ctx.saved_tensors)
        return grad * by_u, grad * by_ratio

    @staticmethod
    def jvp(ctx: Any, u_tangent: Tensor, ratio_tangent: Tensor) -> Tensor:
        by_u, by_ratio = _slopes(*ctx.saved_tensors)
        return u_tangent * by_u + ratio_tangent * by_ratio


class _Coordinate(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(gap: Tensor, ratio: Tensor) -> Tensor:
        whole = log_ndtr(ratio)
        upper = log_ndtr(ratio - gap) - whole
        lower = (_log_probability(gap, ratio) - whole).clamp_max(0)
        return torch.where(upper < _LOG_HALF, -log_ndtri(upper.clamp_max(_LOG_HALF)), log_ndtri(lower))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(*inputs, output)
        ctx.save_for_forward(*inputs, output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor]:
        gap, ratio, u = ctx.saved_tensors
        by_u, by_ratio = _slopes(u, ratio, gap)
        return grad / by_u, -grad * by_ratio / by_u

    @staticmethod
    def jvp(ctx: Any, gap_tangent: Tensor, ratio_tangent: Tensor) -> Tensor:
        gap, ratio, u = ctx.saved_tensors
        by_u, by_ratio = _slopes(u, ratio, gap)
        return (gap_tangent - ratio_tangent * by_ratio) / by_u


def _slopes(u: Tensor, ratio: Tensor, gap: Tensor) -> tuple[Tensor, Tensor]:
    """The derivatives of the gap by its coordinate and by the ratio."""
    is_above = u > 0
    above = 1 - mills_ratio(-(gap - ratio).clamp_min(0)) / mills_ratio(ratio)
    small = gap.masked_fill(is_above, 0)
    below = -torch.expm1(small * (0.5 * small - ratio) + log_ndtr(-u.clamp_max(0)))
    return gap_log_slope(u, gap, ratio).exp(), torch.where(is_above, above, below)


def _below_median(u: Tensor, ratio: Tensor, whole: Tensor) -> Tensor:
    """The gap of a negative coordinate, where it is far below the mean or near the wall."""
    target = whole + log_ndtr(u)
    far = ratio + log_ndtri(torch.logaddexp(log_ndtr(-ratio), target).clamp_max(0))
    # near the wall the density is exponential, up to a factor exp(-d^2 / 2)
    log_mass = target + 0.5 * ratio.square() + _HALF_LOG_TWO_PI
    is_near = log_mass + ratio.clamp_min(_TINY_RATIO).log() < 0
    mass = log_mass.where(is_near, 0.0).exp()
    product = (ratio * mass).masked_fill(~is_near, 0.5)
    is_small = product.abs() < 1e-3
    gap = mass * torch.where(is_small, 1 - 0.5 * product, torch.log1p(product) / product.masked_fill(is_small, 1.0))
    for _ in range(_NEWTON_STEPS):  # in the logarithms of gap and probability, where the function is almost linear
        found = _log_probability(gap, ratio)
        density = gap.log() - 0.5 * (gap - ratio).square() - _HALF_LOG_TWO_PI
        step = (found - target) * (found - density).exp()
        gap = gap * (-step.nan_to_num(nan=0.0)).exp()
    return torch.where(is_near, gap, far)


def _log_probability(gap: Tensor, ratio: Tensor) -> Tensor:
    r"""The logarithm of :math:`\Phi(d - a) - \Phi(-a)`."""
    is_near = gap * ratio.clamp_min(1) < 1
    small = gap.where(is_near, 0.0)
    nodes, weights = _quadrature(gap.device, gap.dtype)
    place = small[..., None] * nodes
    total = (place * (ratio[..., None] - 0.5 * place)).exp() @ weights
    near = gap.log() + total.log() - 0.5 * ratio.square() - _HALF_LOG_TWO_PI
    large = gap.where(~is_near, 1.0)
    end, start = log_ndtr(large - ratio), log_ndtr(-ratio)
    return torch.where(is_near, near, end + torch.log(-torch.expm1(start - end)))


@functools.cache
@as_constants()
def _quadrature(device: torch.device, dtype: torch.dtype) -> Tensor:
    """The nodes and the weights of Gauss and Legendre for integrals from 0 to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(10)
    return torch.from_numpy(np.stack([0.5 * (1 + nodes), 0.5 * weights])).to(device, dtype)
