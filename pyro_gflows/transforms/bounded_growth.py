"""The smooth bound of how fast the exponential of a convolution grows, which the two kinds of layers share."""

from __future__ import annotations

import math

from torch import Tensor

__all__ = ["growth_scale"]


def growth_scale(growth: Tensor, bound: float) -> Tensor:
    r"""The factor :math:`1 / \sqrt{1 + (\mu / b)^2}` that scales a linear map of growth :math:`\mu` to growth below b.

    The growth of a linear map K is the largest modulus of an eigenvalue of its symmetric part, so that
    :math:`e^{-\mu} |x| \le |e^K x| \le e^\mu |x|`. The factor is smooth, and 1 at a growth of 0.

    Args:
        growth: An upper bound of the growth.
        bound: The bound b.

    Raises:
        ValueError: If the bound is not positive and finite.

    Example:
        >>> import torch
        >>> round(float(3000.0 * growth_scale(torch.tensor(3000.0), 3.0)), 3)
        3.0
    """
    if not 0 < bound < math.inf:
        raise ValueError(f"expected a positive finite bound max_log_scale, got {bound}")
    return (1 + (growth / bound).square()).rsqrt()
