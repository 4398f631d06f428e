"""Grids of positions on which the conditionals of a sequential placement are evaluated."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.interpolate import CubicSpline
from torch import Tensor, nn

from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.serialization.registry import registered

__all__ = ["Coarser", "DirectionGrid", "PlacementGrids", "direction_grids", "refined"]


@registered
@dataclass(frozen=True)
class PlacementGrids:
    """How finely the conditionals of a sequential placement are resolved; every choice gives an exact density.

    Args:
        radii: Radii at which the field is averaged over directions.
        refine: Knots of the radial density for each of these radii; with more than 1, the averages are interpolated by
            cubic splines.
        angles: Angles of the average over directions (in space: azimuths, for each cosine of the polar angle).
        cosines: In space, cosines of the polar angle in that average.
        polar: In space, knots of the density of the cosine of the polar angle.
        ring: Knots of the density of the last angle, on a circle.

    Example:
        >>> PlacementGrids(ring=96).ring
        96
    """

    radii: int = 33
    refine: int = 4
    angles: int = 48
    cosines: int = 6
    polar: int = 21
    ring: int = 128

    @staticmethod
    def default(d: int) -> PlacementGrids:
        """A resolution for the plane or for space.

        Args:
            d: The dimension of the space.
        """
        return PlacementGrids() if d == 2 else PlacementGrids(radii=9, angles=24, ring=96)

    def __post_init__(self) -> None:
        fits = (self.radii % 4 == 1, self.polar % 4 == 1, self.angles % 24 == 0, self.ring % 4 == 0)
        if not all(fits) or min(self.radii, self.polar, self.ring) < 8 or min(self.angles, self.refine) < 1:
            raise ValueError(
                "expected radii and polar of 9, 13, 17, ..., angles a multiple of 24, ring a multiple of 4 from 8 on, "
                f"and refine of at least 1, so that coarser grids lie in these and reflections keep them, got {self}"
            )
        if self.cosines < 2:
            raise ValueError(f"expected at least 2 cosines, got {self.cosines}")


@dataclass(frozen=True)
class DirectionGrid:
    """Unit vectors with weights that average a function over directions.

    Attributes:
        units: Shape ``(directions, d)``.
        log_weights: Shape ``(directions,)``; the weights sum to 1.
    """

    units: Tensor
    log_weights: Tensor


def direction_grids(d: int, grids: PlacementGrids) -> tuple[DirectionGrid, DirectionGrid]:
    """The grids for a step with one placed direction, about which a half circle is enough, and for later steps.

    Args:
        d: The dimension of the space, 2 or 3.
        grids: The numbers of points.
    """
    angles = grids.angles
    if d == 2:
        half = torch.arange(angles // 2 + 1, dtype=torch.float64) * (2 * math.pi / angles)
        weights = torch.ones(len(half), dtype=torch.float64)
        weights[0] = weights[-1] = 0.5
        full = torch.arange(angles, dtype=torch.float64) * (2 * math.pi / angles)
        return _grid(_plane(half), weights), _grid(_plane(full), torch.ones_like(full))
    few, few_weights = _gauss(4 * grids.cosines)
    many, many_weights = _gauss(grids.cosines)
    azimuths = torch.arange(angles // 2, dtype=torch.float64) * (4 * math.pi / angles)  # half as many for the radius
    meridian = torch.stack([(1 - few.square()).sqrt(), torch.zeros_like(few), few], -1)
    circle = _plane(azimuths)
    rings = torch.cat(
        [
            (1 - many.square()).sqrt()[:, None, None] * circle[None],
            many[:, None, None].expand(-1, len(circle), 1),
        ],
        -1,
    )
    return (
        _grid(meridian, few_weights),
        _grid(rings.flatten(0, 1), many_weights[:, None].expand(-1, len(circle)).flatten()),
    )


def refined(count: int, factor: int) -> Tensor:
    """The matrix that interpolates values at equidistant points at a finer grid, by a cubic spline.

    Args:
        count: The number of points.
        factor: How many of the finer spacings make one of the coarser ones.

    Returns:
        Shape ``((count - 1) factor + 1, count)``.
    """
    fine = np.arange((count - 1) * factor + 1) / factor
    return torch.from_numpy(CubicSpline(np.arange(count), np.eye(count), bc_type="not-a-knot")(fine))


class Coarser(nn.Module):
    """Evaluation of a smooth function at some points of a grid, and its interpolation at all of them.

    Args:
        index: The points at which the function is evaluated.
        matrix: The interpolation, shape ``(points, len(index))``.

    Example:
        >>> coarser = Coarser.interval(9, 2)
        >>> points = torch.linspace(0, 1, 9)
        >>> torch.allclose(coarser(coarser.some(points, 0) ** 3, 0), points**3, atol=1e-6)
        True
    """

    index: Tensor

    def __init__(self, index: Tensor, matrix: Tensor) -> None:
        super().__init__()
        self.register_buffer("index", index, persistent=False)
        self.matrix = FixedBasis(matrix)

    @staticmethod
    def interval(count: int, stride: int) -> Coarser:
        """Every ``stride``-th of equidistant points, with both ends.

        Args:
            count: The number of points; ``count - 1`` is a multiple of the stride.
            stride: The stride.
        """
        return Coarser(torch.arange(0, count, stride), refined((count - 1) // stride + 1, stride))

    @staticmethod
    def circle(count: int, stride: int) -> Coarser:
        """Every ``stride``-th of equidistant points on a circle.

        Args:
            count: The number of points, a multiple of the stride.
            stride: The stride.
        """
        few = count // stride
        values = np.concatenate([np.eye(few), np.eye(few)[:1]])
        spline = CubicSpline(np.arange(few + 1), values, bc_type="periodic")
        return Coarser(torch.arange(0, count, stride), torch.from_numpy(spline(np.arange(count) / stride)))

    @staticmethod
    def product(first: Coarser, second: Coarser) -> Coarser:
        """The product of two grids, of which the second one runs faster.

        Args:
            first: The points of the slow index.
            second: The points of the fast index.
        """
        count = len(second.matrix.value)
        index = first.index[:, None] * count + second.index
        return Coarser(index.flatten(), torch.kron(first.matrix.value, second.matrix.value))

    def some(self, values: Tensor, dim: int) -> Tensor:
        """The values at the points at which the function is evaluated.

        Args:
            values: Values on the grid.
            dim: The dimension of the points.
        """
        return values.index_select(dim, self.index)

    def forward(self, values: Tensor, dim: int) -> Tensor:
        """The values at all points of the grid.

        Args:
            values: Values at the points of :meth:`some`.
            dim: The dimension of the points.
        """
        return (values.movedim(dim, -1) @ self.matrix(values).mT).movedim(-1, dim)


def _plane(angles: Tensor) -> Tensor:
    return torch.stack([angles.cos(), angles.sin()], -1)


def _gauss(count: int) -> tuple[Tensor, Tensor]:
    points, weights = np.polynomial.legendre.leggauss(count)
    return torch.from_numpy(points), torch.from_numpy(weights)


def _grid(units: Tensor, weights: Tensor) -> DirectionGrid:
    return DirectionGrid(units, (weights / weights.sum()).log())
