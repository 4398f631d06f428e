"""Odd functions of one variable whose slope stays above -1 and has no upper bound."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional

from pyro_gflows.nn.splines import SlopeSplines

__all__ = ["ExpandingSplines"]


class ExpandingSplines(SlopeSplines):
    r"""A bank of learnable odd functions s with a slope above -1 that may be arbitrarily large.

    They are the radial functions of potentials: :math:`t + c\,s(t)` is increasing for every c in (0, 1], and it may
    expand without limit. The slope is a linear interpolation of

    .. math:: s'(t_j) = \mathrm{softplus}(\theta_j) / \ln 2 - 1 > -1

    at equidistant knots, which is 0 for a parameter of 0. The value is the exact integral of the slope from 0. Beyond
    the last knot, the slope keeps the value that it has there, and the value grows with that slope.

    Args:
        count: The number of functions.
        knots: The number of knots on [0, limit].
        limit: The distance from 0 beyond which the functions are linear.
        start: The standard deviation of the parameters at the start; 0 gives s = 0.

    Raises:
        ValueError: If there is no function, there are fewer than 2 knots, or the limit is not positive.

    Example:
        >>> import torch
        >>> splines = ExpandingSplines(2)
        >>> _ = torch.nn.init.constant_(splines.theta, 10.0)
        >>> value, slope = splines(torch.tensor([100.0, 200.0]), 1)
        >>> [round(each.item(), 1) for each in (*value, *slope)]
        [1342.7, 2685.4, 13.4, 13.4]
    """

    def __init__(self, count: int, *, knots: int = 32, limit: float = 8.0, start: float = 0.0) -> None:
        super().__init__(count, knots=knots, limit=limit, odd=True, start=start)

    @staticmethod
    def _slopes(theta: Tensor) -> Tensor:
        return functional.softplus(theta) / math.log(2) - 1

    def extra_repr(self) -> str:
        return f"{self.count} odd functions, {self.knots} knots on [0, {self.limit:g}], slope > -1"
