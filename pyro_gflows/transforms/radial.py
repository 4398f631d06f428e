"""GRadial: a monotone spline of the radius of each isotypic part."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.actions import GroupAction
from pyro_gflows.nn.radial import IsotypicParts, safe_norm
from pyro_gflows.numerics import rational_quadratic
from pyro_gflows.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform

__all__ = ["GRadial", "g_radial"]

_SMALLEST = 1e-3


@registered
class GRadial(EquivariantTransform):
    r"""Stretches each isotypic part of a vector along its radius by a monotone rational-quadratic spline R.

    .. math:: y_i = \frac{x_i}{|x_i|} R_i(|x_i|), \qquad
        \log|\det J| = \sum_i \log R_i'(r_i) + (d_i - 1) \log\frac{R_i(r_i)}{r_i}

    Bijective because R is increasing with R(0) = 0 and a linear tail, both directions in closed form; it commutes with
    every orthogonal map of each part, so with the group, continuous ones included. It never mixes directions: on its
    own it models radial structure only.

    Args:
        action: how the group moves vectors.
        bins: bins of each spline.
        limit: where the linear tail begins.

    Raises:
        ValueError: events are not vectors, or bins and limit are not positive.

    Source: Neural Spline Flows, arXiv:1906.04032 (the monotone spline).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> layer = GRadial(VectorAction.plane("O(2)"))
        >>> bool(torch.allclose(layer(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]), atol=1e-5))
        True
    """

    def __init__(self, action: GroupAction, *, bins: int = 32, limit: float = 4.0) -> None:
        super().__init__(action)
        if action.event_dim != 1:
            raise ValueError(f"GRadial works on vectors, got {action}")
        if not 1 <= bins < 1 / _SMALLEST or not 0 < limit < math.inf:
            raise ValueError(f"expected 1 <= bins < {1 / _SMALLEST:g} and a positive limit, got {bins} and {limit}")
        self.bins, self.limit = bins, limit
        self.parts = IsotypicParts(action)
        count = len(self.parts)
        self.widths = nn.Parameter(torch.zeros(count, bins))
        self.heights = nn.Parameter(torch.zeros(count, bins))
        self.slopes = nn.Parameter(torch.zeros(count, bins + 1))
        self.log_height = nn.Parameter(torch.zeros(count))

    def _knots(self) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, values and slopes at the knots, each ``(parts, bins + 1)``; the identity at the start."""
        ends = (self.limit * torch.ones_like(self.log_height), self.limit * self.log_height.exp())
        grids = []
        for raw, end in zip((self.widths, self.heights), ends, strict=True):
            share = _SMALLEST + (1 - _SMALLEST * self.bins) * raw.softmax(-1)
            inner = functional.pad(share.cumsum(-1)[:, :-1], (1, 0))
            grids.append(torch.cat([inner * end[:, None], end[:, None]], -1))  # the last knot exactly at the end
        slopes = _SMALLEST + functional.softplus(self.slopes + math.log(math.expm1(1 - _SMALLEST)))
        return grids[0], grids[1], slopes

    def _through(self, x: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        parts = self.parts.split(x)
        position, value, slope = self._knots()
        moved, total = [], torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
        for index, part in enumerate(parts):
            radius = safe_norm(part)
            image, log_slope = _spline(radius, position[index], value[index], slope[index], inverse=inverse)
            moved.append(part * (image / radius))
            across = (part.shape[-1] - 1) * (image.log() - radius.log())
            total = total + (log_slope + across).squeeze(-1)
        return self.parts.merge(moved), total

    def call_and_ladj(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self._through(x, inverse=True)

    def inv_call_and_ladj(self, y: Tensor) -> tuple[Tensor, Tensor]:
        return self._through(y, inverse=False)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.bins} bins on [0, {self.limit:g}]"


def _spline(r: Tensor, position: Tensor, value: Tensor, slope: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
    """The spline (or its inverse) at r >= 0, and the log of its slope there."""
    grid = value if inverse else position
    index = (torch.searchsorted(grid.detach(), r.detach().contiguous(), right=True) - 1).clamp(0, len(grid) - 2)
    table = torch.stack([position[:-1], value[:-1], position.diff(), value.diff(), slope[:-1], slope[1:]], -1)
    left, bottom, width, height, start, end = table[index].unbind(-1)
    return rational_quadratic(r, (left, bottom), (width, height), (start, end), inverse=inverse)


def g_radial(action: GroupAction, *, bins: int = 32, limit: float = 4.0) -> GRadial:
    """A radial spline layer, with the arguments of :class:`GRadial`.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> g_radial(VectorAction.space("SO(3)"), bins=8)(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """
    return GRadial(action, bins=bins, limit=limit)
