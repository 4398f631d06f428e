r"""Functions of one variable with a bounded, learnable slope.

The slope is a linear interpolation of :math:`\tanh\theta_j` at equidistant knots, and constant beyond them. The
function s is the integral of the slope from 0. So :math:`|s'| < 1` for all weights, s has a continuous derivative, and
both s and s' are known exactly.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.nn.kernel import KernelLayer

__all__ = ["SlopeSplines", "integrate_slopes"]


def integrate_slopes(t: Tensor, slopes: Tensor, row: Tensor | int, *, spacing: float) -> tuple[Tensor, Tensor]:
    """The integral from 0 of a piecewise-linear slope, and the slope.

    Args:
        t: Points of any shape.
        slopes: The slopes at the 2 n - 1 knots ``-(n - 1) spacing, ..., 0, ..., (n - 1) spacing``, shape ``(functions,
            2 n - 1)``; beyond the knots they are constant.
        row: The index of the function for each point; integers that broadcast with t.
        spacing: The distance between knots.

    Example:
        >>> integrate_slopes(torch.tensor([0.5, 2.0]), torch.ones(1, 3), 0, spacing=1.0)
        (tensor([0.5000, 2.0000]), tensor([1., 1.]))
    """
    return _look_up(t, _in_units(_pieces(slopes), spacing), row, spacing)


def _pieces(slopes: Tensor) -> Tensor:
    """For each piece between two knots one unit apart, the integral up to it, the slope at its start, and its bend.

    The shape is ``(functions, 3, pieces)``. It is linear in the slopes.
    """
    functions, knots = slopes.shape
    n = (knots + 1) // 2
    # one more knot on the left: beyond either end the function is then one more piece without bend
    slopes = torch.cat([slopes[:, :1], slopes], 1)
    bend = torch.cat([slopes.diff(dim=1), slopes.new_zeros(functions, 1)], 1)
    pieces = (slopes[:, :-1] + 0.5 * bend[:, :-1]).cumsum(1)
    area = torch.cat([slopes.new_zeros(functions, 1), pieces], 1)
    return torch.stack([area - area[:, n, None], slopes, bend], 1)


def _in_units(pieces: Tensor, spacing: float) -> Tensor:
    """The pieces between knots at that distance, of shape ``batch + (3, functions, pieces)``."""
    area, start, bend = pieces.unbind(-2)
    return torch.stack([area * spacing, start, bend / spacing], -3)


def _look_up(t: Tensor, pieces: Tensor, row: Tensor | int, spacing: float) -> tuple[Tensor, Tensor]:
    n = pieces.shape[-1] // 2
    # rows of contiguous values from one look-up: its backward pass is the only scatter
    table = pieces.flatten(1)
    # not in place, which torch.func.linearize refuses; the offset alone passes NaN on
    knot = (t.detach() / spacing).floor().clamp(-n, n - 1).nan_to_num()
    offset = t - spacing * knot  # not torch.sub with alpha, which crashes inside torch.func.linearize
    place = (knot + (n + 2 * n * torch.as_tensor(row, device=t.device))).to(torch.int64)
    area, start, bend = table.index_select(1, place.flatten()).reshape(3, *place.shape).unbind(0)
    rise = bend * offset
    return torch.addcmul(area, offset, torch.add(start, rise, alpha=0.5)), start + rise


class SlopeSplines(KernelLayer):
    """A bank of learnable functions s with s(0) = 0 and :math:`|s'| < 1`.

    They are the nonlinear part of residual branches with a certified Lipschitz constant.

    Args:
        count: The number of functions.
        knots: The number of knots on [0, limit]; a function that is not odd has the same number on [-limit, 0].
        limit: The distance from 0 beyond which the functions are linear.
        odd: Whether every function is odd, s(-t) = -s(t).
        start: The standard deviation of the slope parameters at the start; 0 gives s = 0.

    Raises:
        ValueError: If there is no function, there are fewer than 2 knots, or the limit is not positive.

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
        self.spacing = limit / (knots - 1)
        slopes = torch.eye(self.theta.shape[1])
        if odd:  # then the slope is even
            slopes = torch.cat([slopes.flip(1), slopes[:, 1:]], 1)
        # the map from slopes to pieces, whose entries are exact in every dtype: multiples of a half
        self.register_buffer("integrals", _pieces(slopes).flatten(1), persistent=False)

    def forward(self, t: Tensor, row: Tensor | int = 0) -> tuple[Tensor, Tensor]:
        """The values and slopes ``(s(t), s'(t))``.

        Args:
            t: Points of any shape.
            row: The index of the function for each point; integers that broadcast with t.
        """
        return _look_up(t, self.kernel(), row, self.spacing)

    def _make_kernel(self) -> Tensor:
        return self._make_kernels([self])[0]

    def slopes(self) -> Tensor:
        """The slopes at the knots, between which the slope is linear; shape ``(count, knots)`` for odd functions."""
        return self._slopes(self.theta)

    @staticmethod
    def _slopes(theta: Tensor) -> Tensor:
        """The slopes at the knots, of parameters of any shape; a subclass may choose other bounds."""
        return torch.tanh(theta)

    def _alike(self) -> Hashable:
        theta = self.theta
        return (theta.shape, self.knots, self.spacing, self.odd, theta.dtype, theta.device)

    @classmethod
    def _make_kernels(cls, layers: Sequence[Any]) -> Sequence[Tensor]:
        """The pieces of all functions of each layer, shape ``(3, count, 2 * knots)``."""
        slopes = cls._slopes(torch.stack([layer.theta for layer in layers]))
        pieces = slopes @ layers[0].integrals.to(slopes)
        return _in_units(pieces.unflatten(2, (3, -1)), layers[0].spacing).unbind()

    def extra_repr(self) -> str:
        kind = "odd functions" if self.odd else "functions"
        return f"{self.count} {kind}, {self.knots} knots on [0, {self.limit:g}], |slope| < 1"
