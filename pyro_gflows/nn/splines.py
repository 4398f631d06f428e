r"""Functions of one variable with a bounded, learnable slope.

The slope is a linear interpolation of :math:`\tanh\theta_j` at equidistant knots, constant outside; the function is its
integral from 0. So :math:`|s'| < 1` for every weight, s is C1, and both s and s' are known exactly.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["SlopeSplines", "integrate_slopes"]


def integrate_slopes(t: Tensor, slopes: Tensor, row: Tensor | int, *, spacing: float) -> tuple[Tensor, Tensor]:
    r"""The integral from 0 of a piecewise-linear slope, and that slope.

    Args:
        t: points, any shape.
        slopes: values at the 2 n - 1 knots ``-(n - 1) spacing, ..., 0, ..., (n - 1) spacing``; shape
            ``(functions, 2 n - 1)``; constant outside.
        row: which function each point belongs to; integers that broadcast with t.
        spacing: distance between knots.
    """
    functions, knots = slopes.shape
    n = (knots + 1) // 2
    # one more knot on the left: beyond either end the function is then one more piece without bend
    slopes = torch.cat([slopes[:, :1], slopes], 1)
    bend = torch.cat([slopes.diff(dim=1), slopes.new_zeros(functions, 1)], 1)
    pieces = (slopes[:, :-1] + 0.5 * bend[:, :-1]).cumsum(1)
    area = torch.cat([slopes.new_zeros(functions, 1), pieces], 1)
    area = area - area[:, n, None]
    # rows of contiguous numbers from one look-up: its backward is the only scatter
    table = torch.stack([area * spacing, slopes, bend / spacing]).flatten(1)
    knot = (t.detach() / spacing).floor_().clamp(-n, n - 1).nan_to_num()  # NaN goes through by the offset alone
    offset = t - spacing * knot  # not torch.sub with alpha, which crashes inside torch.func.linearize
    place = (knot + (n + 2 * n * torch.as_tensor(row, device=t.device))).to(torch.int64)
    area, start, bend = table.index_select(1, place.flatten()).reshape(3, *place.shape).unbind(0)
    rise = bend * offset
    return torch.addcmul(area, offset, torch.add(start, rise, alpha=0.5)), start + rise


class SlopeSplines(nn.Module):
    r"""A bank of functions s with s(0) = 0 and :math:`|s'| < 1`, learnable.

    Args:
        count: how many functions.
        knots: knots on [0, limit]; an unconstrained function has as many again on [-limit, 0].
        limit: where the linear tails begin.
        odd: make every function odd, s(-t) = -s(t).
        start: standard deviation of the slope parameters at the start; 0 gives s = 0.

    Raises:
        ValueError: fewer than 1 function or 2 knots, or a limit that is not positive.

    Example:
        >>> value, slope = SlopeSplines(3)(torch.zeros(5, 3), torch.arange(3))
        >>> value.abs().max().item(), bool((slope.abs() < 1).all())
        (0.0, True)
    """

    def __init__(
        self, count: int, *, knots: int = 16, limit: float = 4.0, odd: bool = False, start: float = 0.1
    ) -> None:
        super().__init__()
        if count < 1 or knots < 2 or limit <= 0:
            raise ValueError(f"expected count >= 1, knots >= 2, limit > 0, got {count}, {knots}, {limit}")
        self.count, self.knots, self.limit, self.odd = count, knots, limit, odd
        self.theta = nn.Parameter(start * torch.randn(count, knots if odd else 2 * knots - 1))

    def forward(self, t: Tensor, row: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """``(s(t), s'(t))``; ``row`` says which function of the bank, broadcasting with t."""
        slopes = torch.tanh(self.theta)
        if self.odd:  # then the slope is even
            slopes = torch.cat([slopes.flip(1), slopes[:, 1:]], 1)
        return integrate_slopes(t, slopes, row, spacing=self.limit / (self.knots - 1))

    def extra_repr(self) -> str:
        kind = "odd functions" if self.odd else "functions"
        return f"{self.count} {kind}, {self.knots} knots on [0, {self.limit:g}], |slope| < 1"
