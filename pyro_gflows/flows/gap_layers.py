"""Layers of a flow on coordinates of gaps to walls and other coordinates, and the map from them to the gaps.

The first coordinates are those of gaps (u in :mod:`pyro_gflows.numerics.truncated_gap`), and the others are free. A
density of gaps is finite and positive at a wall only if its flow is the identity where a coordinate of a gap tends to
minus infinity. So no layer here applies an affine map to a coordinate of a gap, and other coordinates depend on it
through a function that is constant there.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.actions import VectorAction
from pyro_gflows.nn import BoundedKnots
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.numerics import monotone_spline
from pyro_gflows.numerics.truncated_gap import coordinate_of_gap, gap_log_slope, gap_of_coordinate
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["GapCoupling", "GapPlacement", "bounded"]

_LOWEST = -3.5  # below this coordinate, maps of gaps are the identity where a wall is near
_LIMIT = 4.0
_BINS = 8
_MAX_LOG_SCALE = 3.0
_LEAST_RATIO = -8.0  # of mean and standard deviation, below which truncated normals all look exponential


def bounded(u: Tensor) -> Tensor:
    """A function of coordinates of gaps that is u in the bulk, and constant below -3.5 and above 5.

    Args:
        u: Coordinates of gaps.

    Example:
        >>> bounded(torch.tensor([-100.0, -3.5, -2.0, 4.0, 100.0]))
        tensor([-2.7500, -2.7500, -2.0000,  3.7500,  4.0000])
    """
    below, above = (-2.0 - u).clamp(0.0, 1.5), (u - 3.0).clamp(0.0, 2.0)
    return u.clamp(-2.0, 3.0) + above * (1 - above / 4) - below * (1 - below / 3)


class GapCoupling(EquivariantTransform):
    r"""A coupling layer: splines of the coordinates of gaps and affine maps of the others, with computed parameters.

    One part of the coordinates is changed by functions of the others, which a network computes. The splines are the
    identity below -3.5, have a slope of their own above their last knot, and a free total height. So they shift and
    scale a coordinate far from the wall, and leave it near the wall.

    Args:
        action: The action of the trivial group on all coordinates.
        gaps: The number of coordinates of gaps, which come first.
        changed: The indices of the coordinates that the layer changes.
        width: Hidden features of the network.
    """

    def __init__(self, action: VectorAction, gaps: int, changed: Tensor, *, width: int) -> None:
        super().__init__(action)
        is_changed = torch.zeros(action.numel, dtype=torch.bool)
        is_changed[changed] = True
        self.gaps = gaps
        self._index("read", (~is_changed).nonzero().flatten())
        self._index("bent", is_changed[:gaps].nonzero().flatten())
        self._index("scaled", gaps + is_changed[gaps:].nonzero().flatten())
        self.knots = BoundedKnots()
        outputs = (3 * _BINS + 1) * len(self.bent) + 2 * len(self.scaled)
        sizes = [max(1, len(self.read)), width, width]
        hidden = [layer for pair in itertools.pairwise(sizes) for layer in (nn.Linear(*pair), nn.SiLU())]
        self.network = nn.Sequential(*hidden, nn.Linear(width, outputs))
        for parameter in self.network[-1].parameters():
            nn.init.zeros_(parameter)

    read: Tensor
    bent: Tensor
    scaled: Tensor

    def _index(self, name: str, value: Tensor) -> None:
        self.register_buffer(name, value, persistent=False)

    def _parameters_of(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        read = torch.cat([bounded(x[..., : self.gaps]), x[..., self.gaps :]], -1)[..., self.read]
        raw = self.network(read if len(self.read) else x.new_ones(*x.shape[:-1], 1))
        count = (3 * _BINS + 1) * len(self.bent)
        log_scale, shift = raw[..., count:].chunk(2, -1)
        log_scale = _MAX_LOG_SCALE * torch.tanh(log_scale / _MAX_LOG_SCALE)
        return raw[..., :count].unflatten(-1, (len(self.bent), 3 * _BINS + 1)), log_scale, shift

    def _bend(self, u: Tensor, raw: Tensor, *, inverse: bool) -> tuple[Tensor, Tensor]:
        widths, heights, slopes, height = raw.split([_BINS, _BINS, _BINS, 1], -1)
        widths = self.knots.widths(widths)
        heights = self.knots.heights(heights, widths) * self.knots.log_height(height).exp()
        slopes = self.knots.slopes(functional.pad(slopes, (1, 0)), heights / widths)
        slopes = torch.cat([torch.ones_like(slopes[..., :1]), slopes[..., 1:]], -1)
        sizes = ((_LIMIT - _LOWEST) * widths, (_LIMIT - _LOWEST) * heights)
        return monotone_spline(u, _LOWEST, sizes, slopes, inverse=inverse)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raw, log_scale, shift = self._parameters_of(x)
        image, ladj = x.clone(), log_scale.sum(-1)
        image[..., self.scaled] = x[..., self.scaled] * log_scale.exp() + shift
        if len(self.bent):
            image[..., self.bent], log_slope = self._bend(x[..., self.bent], raw, inverse=False)
            ladj = ladj + log_slope.sum(-1)
        return image, ladj

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        raw, log_scale, shift = self._parameters_of(y)
        image, ladj = y.clone(), -log_scale.sum(-1)
        image[..., self.scaled] = (y[..., self.scaled] - shift) * (-log_scale).exp()
        if len(self.bent):
            image[..., self.bent], log_slope = self._bend(y[..., self.bent], raw, inverse=True)
            ladj = ladj + log_slope.sum(-1)
        return image, ladj


class GapPlacement(EquivariantTransform):
    r"""The map from coordinates to gaps and free coordinates with any covariance: normal far from the walls.

    With y the gaps and free coordinates, less their centers and in units that are fixed once, and with a lower
    triangular matrix P, the map is :math:`y = P^{-1} z` far from the walls. There, given the gaps before it, gap i is a
    normal variable with a mean m that depends linearly on them and with standard deviation :math:`s = 1/P_{ii}`. Here
    it is the quantile of this normal distribution truncated at 0, so that no gap is negative, and the density is finite
    and positive at each wall. The free coordinates depend linearly on the gaps.

    Centers and P are learned. Samples take one step for each gap, and scores one step for all.

    Args:
        action: The action of the trivial group on all coordinates.
        gaps: The number of gaps, which come first.
    """

    def __init__(self, action: VectorAction, gaps: int) -> None:
        super().__init__(action)
        size = action.numel
        self.gaps = gaps
        self.frame = FixedBasis(torch.eye(size))
        self.center = FixedBasis((torch.arange(size) < gaps).to(torch.float64))
        self.unit = FixedBasis(torch.ones(size))
        self.below = nn.Parameter(torch.zeros(size, size))
        self.log_diagonal = nn.Parameter(torch.zeros(size))
        self.shift = nn.Parameter(torch.zeros(size))

    @torch.no_grad()
    def place(self, center: Tensor, factor: Tensor) -> None:
        """Fix the centers and the units.

        Args:
            center: The means of gaps and free coordinates, shape ``(numel,)``.
            factor: A lower triangular factor F of their covariance :math:`F F^T`, shape ``(numel, numel)``.
        """
        unit = factor.norm(dim=1)
        identity = torch.eye(len(unit), dtype=factor.dtype, device=factor.device)
        self.center.value.copy_(center)
        self.unit.value.copy_(unit)
        self.frame.value.copy_(torch.linalg.solve_triangular(factor / unit[:, None], identity, upper=False))

    def _matrix(self, like: Tensor) -> Tensor:
        """The lower triangular matrix P, in the fixed units."""
        return (self.below.tril(-1) + torch.diag(self.log_diagonal.exp())) @ self.frame(like)

    def _center(self, like: Tensor) -> Tensor:
        return self.center(like) + self.unit(like) * self.shift

    def _ratio(self, known: Tensor, index: int | slice, matrix: Tensor, like: Tensor) -> Tensor:
        """The ratio m / s of gaps, from the contributions of the gaps before them."""
        own = matrix.diagonal()[index]
        raw = own * (self._center(like) / self.unit(like))[index] - known
        return _LEAST_RATIO + functional.softplus(raw - _LEAST_RATIO, beta=2.0)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        matrix, center, unit = self._matrix(x), self._center(x), self.unit(x)
        scale = unit / matrix.diagonal()
        gaps: list[Tensor] = []
        y = x[..., :0]
        total = x.new_zeros(x.shape[:-1])
        for index in range(self.gaps):
            ratio = self._ratio(y @ matrix[index, :index], index, matrix, x)
            gap = gap_of_coordinate(x[..., index], ratio)
            total = total + gap_log_slope(x[..., index], gap, ratio)
            gaps.append(gap * scale[index])
            y = torch.cat([y, ((gaps[-1] - center[index]) / unit[index])[..., None]], -1)
        free = x[..., self.gaps :] - y @ matrix[self.gaps :, : self.gaps].T
        if free.shape[-1]:
            upper, rows = matrix[self.gaps :, self.gaps :].T, free.reshape(-1, free.shape[-1])
            free = torch.linalg.solve_triangular(upper, rows, upper=True, left=False).reshape(free.shape)
            free = free * unit[self.gaps :] + center[self.gaps :]
        image = torch.cat([torch.stack(gaps, -1), free], -1) if gaps else free
        return image, total + scale.log().sum()

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        matrix, center, unit = self._matrix(y), self._center(y), self.unit(y)
        scale = unit / matrix.diagonal()
        gap = y[..., : self.gaps].clamp_min(0)
        inner = (torch.cat([gap, y[..., self.gaps :]], -1) - center) / unit
        known = inner[..., : self.gaps] @ matrix[: self.gaps, : self.gaps].tril(-1).T
        ratio = self._ratio(known, slice(self.gaps), matrix, y)
        gap = gap / scale[: self.gaps]
        u = coordinate_of_gap(gap, ratio)
        total = gap_log_slope(u, gap, ratio).sum(-1) + scale.log().sum()
        return torch.cat([u, inner @ matrix[self.gaps :].T], -1), -total
