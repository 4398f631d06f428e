"""Pointwise activations with two output components for each input component, which preserve more of a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.activations import LipSwish, Pointwise
from pyro_gflows.nn.splines import integrate_slopes
from pyro_gflows.serialization.registry import registered

__all__ = ["ConcatenatedLipSwish", "Curves"]


@registered
class ConcatenatedLipSwish(Pointwise):
    r"""The pair :math:`(\varphi(x), \varphi(-x)) / 1.004` of LipSwish functions of each coordinate; 1-Lipschitz.

    The norm of the two slopes is between 0.64 and 1 everywhere, whereas the slope of a single LipSwish falls to 0 for
    negative x. Here x is one coordinate. A field is a block of components that the group transforms together. The
    output has twice the fields of the input, so that ``batch_shape + (dim,)`` becomes ``batch_shape + (2 dim,)``: first
    all :math:`\varphi(x)`, then all :math:`\varphi(-x)`.

    Args:
        action: An action whose fields are permuted by the group.

    Source: Invertible DenseNets with Concatenated LipSwish, arXiv:2102.02694.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> ConcatenatedLipSwish(VectorAction.regular("C4"))(torch.zeros(5, 4)).shape
        torch.Size([5, 8])
    """

    fan_out = 2

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        self.swish = LipSwish(action)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        (up, up_slope), (down, down_slope) = self.swish.value_and_slope(x), self.swish.value_and_slope(-x)
        dim = -self.action.event_dim
        return torch.cat([up, down], dim) / 1.004, torch.cat([up_slope, -down_slope], dim) / 1.004

    def forward(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]


@registered
class Curves(Pointwise):
    r"""A learnable curve in the plane for each field, evaluated at each of its coordinates; 1-Lipschitz.

    .. math:: x \mapsto \gamma(x) \in \mathbb{R}^2, \qquad \gamma(0) = 0, \qquad |\gamma'| \le 1

    The velocity :math:`\gamma'` is :math:`(\cos\theta_j, \sin\theta_j)` at equidistant knots and linear between them.
    Where the angles of neighboring knots are alike, the speed is nearly 1 and the activation preserves the norm of a
    gradient. The output has twice the fields of the input: first all first coordinates of the curves, then all second
    ones. A curve starts as a smooth bend of 90 degrees.

    Args:
        action: An action whose fields are permuted by the group.
        knots: The number of knots on each side of 0.
        limit: The distance from 0 beyond which the curves are straight.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> value, slope = Curves(VectorAction.regular("C4")).value_and_slope(torch.zeros(5, 4))
        >>> value.shape, bool((slope.square().reshape(5, 2, 4).sum(1) <= 1 + 1e-6).all())
        (torch.Size([5, 8]), True)
    """

    fan_out = 2
    row: Tensor

    def __init__(self, action: LinearAction, *, knots: int = 8, limit: float = 3.0) -> None:
        super().__init__(action)
        self.knots, self.limit = knots, limit
        points = torch.linspace(-limit, limit, 2 * knots - 1)
        self.angle = nn.Parameter(
            0.5 * math.pi * torch.sigmoid(-2 * points) + 0.1 * torch.randn(len(action.fields), len(points))
        )
        self.register_buffer("row", self.field_of_entries(), persistent=False)

    def value_and_slope(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dim, count = -self.action.event_dim, len(self.angle)
        slopes = torch.cat([self.angle.cos(), self.angle.sin()])
        row = torch.cat([self.row, self.row + count])
        value, slope = integrate_slopes(torch.cat([x, x], dim), slopes, row, spacing=self.limit / (self.knots - 1))
        return value, slope

    def forward(self, x: Tensor) -> Tensor:
        return self.value_and_slope(x)[0]
