"""Smooth learned functions of a distance."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_gflows.nn.basis import FixedBasis

__all__ = ["DistanceFunction", "spline_basis"]

_ENTRIES = 1024
_FORGIVING = 8.0  # nats below the maximum over which a start is less and less exact


def spline_basis(t: Tensor, count: int) -> Tensor:
    """The values of the cubic B-splines on [0, 1] with equidistant knots, which sum to 1.

    Args:
        t: Positions in [0, 1], shape ``(points,)``.
        count: The number of splines, at least 4.

    Returns:
        Shape ``(points, count)``.

    Example:
        >>> spline_basis(torch.tensor([0.0, 1.0]), 4)
        tensor([[0.1667, 0.6667, 0.1667, 0.0000],
                [0.0000, 0.1667, 0.6667, 0.1667]])
    """
    u = (t[:, None] * (count - 3) + 1 - torch.arange(count, dtype=t.dtype, device=t.device)).abs()
    near, far = (4 - 6 * u.square() + 3 * u**3) / 6, (2 - u).clamp_min(0) ** 3 / 6
    return torch.where(u < 1, near, far)


class DistanceFunction(nn.Module):
    r"""A smooth learned function of the distance between two particles, fast at millions of distances.

    The function is a cubic spline in the logarithm of the distance r, with equidistant knots between ``shortest`` and
    ``longest``. It is constant below ``shortest``. For speed it is tabulated in :math:`r^2`, interpolated linearly
    between the entries of the table, and continued linearly beyond ``longest``; no square root is taken. It starts
    at 0. The entries are equidistant, so that nothing below about longest/30 is resolved.

    Args:
        shortest: The distance below which the function is constant, or nearly so where it is below longest/30.
        longest: The distance above which it is linear in the squared distance.
        coefficients: The number of splines.
        scale: A factor of the coefficients. Energies of a pair range over tens of units of the temperature, while an
            optimizer changes coefficients by its learning rate: a larger scale learns faster.

    Example:
        >>> function = DistanceFunction(0.5, 9.0)
        >>> function(torch.tensor([1.0, 4.0])).detach()
        tensor([0., 0.])
    """

    def __init__(self, shortest: float, longest: float, *, coefficients: int = 28, scale: float = 10.0) -> None:
        super().__init__()
        entries = torch.linspace(0.0, longest**2, _ENTRIES, dtype=torch.float64).clamp_min(shortest**2)
        t = (0.5 * entries.log() - math.log(shortest)) / math.log(longest / shortest)
        self.basis = FixedBasis(spline_basis(t, coefficients))
        self.coefficients = nn.Parameter(torch.zeros(coefficients))
        self.scale, self.shortest, self.longest = scale, shortest, longest

    @torch.no_grad()
    def start_at(self, function: Callable[[Tensor], Tensor], *, at_least: float = -200.0) -> None:
        """Set the coefficients so that this function is close to another one, above all where that one is large.

        Args:
            function: A function of squared distances.
            at_least: Lower values, as at the core of a repulsion, count as this value.
        """
        squares = torch.linspace(0.0, self.longest**2, _ENTRIES, dtype=torch.float64).clamp_min(self.shortest**2)
        wanted = function(squares.to(self.coefficients)).double().cpu().clamp_min(at_least)
        weights = ((wanted - wanted.max()) / _FORGIVING).exp()[:, None] + 1e-3
        basis = self.basis.value.cpu()
        # gelsd: with entries far apart some splines have none, and the default driver takes that for rank 1
        system, values = weights * basis, weights * wanted[:, None]
        solution = torch.linalg.lstsq(system, values, driver="gelsd").solution[:, 0]
        self.coefficients.copy_(solution / self.scale)

    def forward(self, squares: Tensor) -> Tensor:
        """The values of the function.

        Args:
            squares: Squared distances, of any shape.
        """
        per_square = (_ENTRIES - 1) / self.longest**2  # entries of the table
        # 32 bits and one addcmul: at millions of distances it is memory that takes time
        index = (squares.detach() * per_square).clamp_max(_ENTRIES - 1.5).int().clamp(0, _ENTRIES - 2)  # NaN is any
        index = index.reshape(-1)
        table = self.basis(self.coefficients) @ self.coefficients * self.scale
        slopes = table.diff()
        # each piece is a straight line, of which the value at 0 is looked up
        values = table[:-1] - slopes * torch.arange(_ENTRIES - 1, dtype=table.dtype, device=table.device)
        slopes = (slopes * per_square).index_select(0, index).view_as(squares)
        return torch.addcmul(values.index_select(0, index).view_as(squares), slopes, squares)
