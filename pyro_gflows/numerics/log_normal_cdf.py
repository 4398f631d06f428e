"""The logarithm of the standard normal distribution function and its inverse, accurate in both tails."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

__all__ = ["log_ndtr", "log_ndtri", "mills_ratio"]

_LOG_HALF = -math.log(2.0)
_FAR = -60.0  # where the logarithm of a probability is below this, its exponential may underflow
_LARGEST_LOG = 1e3  # of any float64, so that -inf stays -inf
_NEWTON_STEPS = 3


def log_ndtr(x: Tensor) -> Tensor:
    r"""The logarithm of the standard normal distribution function, :math:`\log \Phi(x)`.

    It has the values of ``torch.special.log_ndtr``, and it also runs under ``torch.func.vmap``.

    Args:
        x: Any real numbers.

    Example:
        >>> log_ndtr(torch.tensor([-100.0, 0.0, 30.0], dtype=torch.float64))
        tensor([ -5.0055e+03,  -6.9315e-01, -4.9067e-198], dtype=torch.float64)
    """
    low, high = x.clamp_max(1), x.clamp_min(1)
    lower = torch.log(0.5 * torch.special.erfcx(low * -math.sqrt(0.5))) - 0.5 * low.square()
    return torch.where(x < 1, lower, torch.log1p(-0.5 * torch.erfc(high * math.sqrt(0.5))))


def mills_ratio(x: Tensor) -> Tensor:
    r"""The ratio :math:`\Phi(x) / \varphi(x)` of the standard normal distribution function and density.

    It is the derivative of the inverse of :math:`\log \Phi`, and it is accurate where :math:`\Phi(x)` underflows.

    Args:
        x: Any real numbers. Above about 37 (13 in float32) the ratio overflows.

    Example:
        >>> mills_ratio(torch.tensor([0.0, -100.0], dtype=torch.float64))
        tensor([1.2533, 0.0100], dtype=torch.float64)
    """
    return math.sqrt(math.pi / 2) * torch.special.erfcx(x * -math.sqrt(0.5))


def log_ndtri(y: Tensor) -> Tensor:
    r"""The point x at which the standard normal distribution function has a given logarithm, :math:`\log \Phi(x) = y`.

    PyTorch has :math:`\log \Phi` but not its inverse, and the quantile ``ndtri(exp(y))``
    is lost where the exponential underflows or rounds to 1. Here the lower half is found by Newton's method for the
    logarithm, and the upper half from the probability of the other tail. All derivatives are available.

    Args:
        y: Logarithms of probabilities, at most 0.

    Returns:
        The quantiles, of the shape of y; infinite where y is 0 or -inf, and NaN where y is positive.

    Example:
        >>> log_ndtri(log_ndtr(torch.tensor([-30.0, 0.0, 8.0]).double()))
        tensor([-30.0000,  -0.0000,   8.0000], dtype=torch.float64)
    """
    return _LogNdtri.apply(y)  # type: ignore[no-untyped-call, no-any-return]


class _LogNdtri(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(y: Tensor) -> Tensor:
        upper = -torch.special.ndtri(-torch.expm1(y.clamp_min(_LOG_HALF)))
        return torch.where(y >= _LOG_HALF, upper, _lower_half(y.clamp_max(_LOG_HALF))).masked_fill(y > 0, math.nan)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor], output: Tensor) -> None:
        ctx.save_for_backward(output)
        ctx.save_for_forward(output)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad * mills_ratio(ctx.saved_tensors[0])

    @staticmethod
    def jvp(ctx: Any, tangent: Tensor) -> Tensor:
        return tangent * mills_ratio(ctx.saved_tensors[0])


def _lower_half(y: Tensor) -> Tensor:
    """The quantiles at or below 0, for logarithms of probabilities of at most one half."""
    near = torch.special.ndtri(y.clamp_min(_FAR).exp())
    # -x^2 / 2 - log(-x) - log(2 pi) / 2 is the leading part of log Phi(x)
    square = -2.0 * y.clamp_max(_FAR) - math.log(2 * math.pi)
    x = torch.where(y < _FAR, -(square - square.log().clamp_max(_LARGEST_LOG)).sqrt(), near)
    for _ in range(_NEWTON_STEPS):
        step = (log_ndtr(x) - y) * mills_ratio(x)
        x = torch.where(step.isfinite(), x - step, x)  # at -inf there is nothing to correct
    return x
