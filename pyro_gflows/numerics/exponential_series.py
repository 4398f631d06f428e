"""The exponential of a linear map that is known by its values only, applied to a vector by a truncated series."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import Tensor

__all__ = ["apply_exponential", "series_length", "truncation_error"]

_LARGEST = 4.0  # the largest norm of one step; beyond it the terms of the series cancel, which costs digits
_REFUSED = 1e3  # a norm of this size takes thousands of applications, which looks like a program that hangs


def truncation_error(norm: float, steps: int, terms: int) -> float:
    r"""The error of :func:`apply_exponential`, as a multiple of :math:`e^{\max(\mu, 0)} |x|`.

    Here :math:`\mu` is the largest eigenvalue of the symmetric part of the map K; hence :math:`|e^{tK}| \le e^{t\mu}`.
    With :math:`\theta = |K| / s`, the remainder of the series of one step after m terms has norm at most
    :math:`r = \theta^{m+1} / (m+1)! \cdot (m+2) / (m+2-\theta)`. The s steps add up to at most
    :math:`s\,r\,(e^{\mu/s} + r)^{s-1}`, which for small r is :math:`s\,r\,e^{\max(\mu, 0)}`.

    Args:
        norm: An upper bound of the norm of K.
        steps: The number s of steps.
        terms: The number m of terms in each step.

    Example:
        >>> truncation_error(1.0, 1, 17) < 1e-15
        True
    """
    theta = norm / steps
    if theta >= terms + 2:
        return math.inf
    if theta == 0:
        return 0.0
    remainder = math.exp((terms + 1) * math.log(theta) - math.lgamma(terms + 2))
    return steps * remainder * (terms + 2) / (terms + 2 - theta)


def series_length(norm: float, tolerance: float) -> tuple[int, int]:
    """The number of steps and of terms in each step with an error of at most ``tolerance`` at the least cost.

    The error is that of :func:`truncation_error`; the cost is the product of the two numbers.

    Args:
        norm: An upper bound of the norm of the map. If it is not finite, which weights that have diverged cause, a
            single term is taken, so that the result shows it.
        tolerance: The largest error, usually the rounding unit of the dtype.

    Raises:
        ValueError: The norm is above 1000, so that the series takes thousands of applications of the map.

    Example:
        >>> series_length(0.1, 2e-16), series_length(10.0, 2e-16)
        ((1, 9), (3, 29))
    """
    if not math.isfinite(norm):
        return 1, 1
    if norm > _REFUSED:
        raise ValueError(
            f"expected a linear map of norm at most {_REFUSED:g}, got one of norm {norm:.3g}, whose exponential takes "
            f"some {8 * norm:.0f} applications; take a smaller learning rate, or a weight decay"
        )
    least = max(1, math.ceil(norm / _LARGEST))
    choices = []
    for steps in range(least, least + 3):
        terms = 1
        while truncation_error(norm, steps, terms) > tolerance:
            terms += 1
        choices.append((steps * terms, steps, terms))
    _, steps, terms = min(choices)
    return steps, terms


def apply_exponential(scaled: Callable[[Tensor, float], Tensor], x: Tensor, *, steps: int, terms: int) -> Tensor:
    r"""The vectors :math:`e^K x`, by scaling and a truncated series (in Horner's scheme) in each step.

    It applies K ``steps * terms`` times.

    Args:
        scaled: The map K times a factor, a function of the vectors and of the factor that returns a new tensor.
        x: Vectors.
        steps: The number s of steps, of which each applies the exponential of K / s.
        terms: The number of terms of the series in each step.

    Example:
        >>> import torch
        >>> apply_exponential(lambda x, factor: 2 * factor * x, torch.ones(1), steps=1, terms=20)
        tensor([7.3891])
    """
    for _ in range(steps):
        start = x
        for term in range(terms, 0, -1):
            x = scaled(x, 1 / (steps * term)).add_(start)  # in place: a new large tensor costs as much as the sum
    return x
