r"""Functions of one variable with a bounded, learnable slope.

The slope is a linear interpolation of :math:`\tanh\theta_j` at equidistant knots, constant outside; the function is its
integral from 0. So :math:`|s'| < 1` for every weight, s is C1, and both s and s' are known exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SlopeSplines", "integrate_slopes"]


def integrate_slopes(t: Tensor, slopes: Tensor, row: Tensor | int, *, spacing: float) -> tuple[Tensor, Tensor]:
    r"""The integral from 0 of a piecewise-linear slope, and that slope, at t >= 0.

    Args:
        t: non-negative points, any shape.
        slopes: values at the knots ``0, spacing, 2 spacing, ...``; shape ``(functions, knots)``; constant beyond the last.
        row: which function each point belongs to; integers that broadcast with t.
        spacing: distance between knots.
    """
    functions, knots = slopes.shape
    bend = torch.cat([slopes.diff(dim=1), slopes.new_zeros(functions, 1)], 1)
    area = (slopes[:, :-1] + 0.5 * bend[:, :-1]).cumsum(1)
    area = torch.cat([slopes.new_zeros(functions, 1), area], 1)
    scaled = t / spacing
    knot = scaled.detach().to(torch.int64).clamp_(0, knots - 1)
    offset = scaled - knot
    # one look-up of three numbers: its backward is the only scatter
    table = torch.stack([area, slopes, bend], -1).reshape(-1, 3)
    at = table.index_select(0, (knot + torch.as_tensor(row, device=t.device) * knots).reshape(-1))
    area_at, slope_at, bend_at = at.reshape(*t.shape, 3).unbind(-1)
    return spacing * (area_at + offset * (slope_at + 0.5 * bend_at * offset)), slope_at + bend_at * offset


class SlopeSplines(nn.Module):
    r"""A bank of functions s with s(0) = 0 and :math:`|s'| < 1`, learnable.

    Args:
        count: how many functions.
        knots: knots on [0, limit]; an unconstrained function has as many again on [-limit, 0].
        limit: where the linear tails begin.
        odd: make every function odd, s(-t) = -s(t).
        start: standard deviation of the slope parameters at the start; 0 gives s = 0.
    """

    def __init__(self, count: int, *, knots: int = 16, limit: float = 4.0, odd: bool = False, start: float = 0.1) -> None:
        super().__init__()
        if count < 1 or knots < 2 or limit <= 0:
            raise ValueError(f"expected count >= 1, knots >= 2, limit > 0, got {count}, {knots}, {limit}")
        self.count, self.knots, self.limit, self.odd = count, knots, limit, odd
        self.theta = nn.Parameter(start * torch.randn(count, knots if odd else 2 * knots - 1))

    def forward(self, t: Tensor, row: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """``(s(t), s'(t))``; ``row`` says which function of the bank, broadcasting with t."""
        slopes = torch.tanh(self.theta)
        spacing = self.limit / (self.knots - 1)
        if not self.odd:
            # one function of |t| for each sign: the two halves share the knot at 0
            slopes = torch.cat([slopes[:, self.knots - 1 :], slopes[:, : self.knots].flip(1)])
            row = torch.as_tensor(row, device=t.device) + self.count * (t.detach() < 0)
        value, slope = integrate_slopes(t.abs(), slopes, row, spacing=spacing)
        return t.detach().sign() * value, slope

    def extra_repr(self) -> str:
        return f"{self.count} {'odd ' if self.odd else ''}functions, {self.knots} knots on [0, {self.limit:g}], |slope| < 1"
