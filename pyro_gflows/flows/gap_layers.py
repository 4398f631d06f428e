r"""Layers of a flow on coordinates of gaps and other coordinates, which are the identity near the walls.

The first coordinates of an event are those of gaps to walls (u in :mod:`pyro_gflows.numerics.truncated_gap`), and the
others are free. A density of gaps is finite and positive at a wall only if its flow is the identity where a coordinate
of a gap tends to minus infinity. So no layer here applies an affine map to a coordinate of a gap, and other coordinates
depend on it through a function that is constant there.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.actions import VectorAction
from pyro_gflows.nn import BoundedKnots
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.numerics import monotone_spline, rational_quadratic
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["GapCoupling", "GapPlacement", "bounded"]

_LOWEST = -3.5  # below this coordinate, maps of gaps are the identity where a wall is near
_LIMIT = 4.0
_BINS = 8
_MAX_LOG_SCALE = 3.0
_BEND = 1.5  # the width of the region between the identity and an affine map
_SHARPNESS = 16.0


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
    r"""A triangular map whose values have any covariance far from the walls, and that is the identity near them.

    With e the coordinates of which those of gaps are bounded, the map is affine for the free coordinates,
    :math:`y = c + F (L e + m)`, where L and m are learned and the triangular matrix F and c are units that are fixed
    once. A coordinate u of a gap is scaled by the diagonal entry l of F L and shifted by t, the rest of the same
    product, above a bend; below the bend it is the identity.

    Args:
        action: The action of the trivial group on all coordinates.
        gaps: The number of coordinates of gaps, which come first.
    """

    bend: Tensor

    def __init__(self, action: VectorAction, gaps: int) -> None:
        super().__init__(action)
        size = action.numel
        self.gaps = gaps
        self.frame = FixedBasis(torch.eye(size))
        self.center = FixedBasis(torch.zeros(size))
        self.register_buffer("bend", torch.full((gaps,), -2.0))
        self.below = nn.Parameter(torch.zeros(size, size))
        self.log_diagonal = nn.Parameter(torch.zeros(size))
        self.shift = nn.Parameter(torch.zeros(size))

    def place(self, center: Tensor, frame: Tensor, ratios: Tensor) -> None:
        """Fix the units.

        Args:
            center: The center c of the free coordinates, after a 0 for each gap; shape ``(numel,)``.
            frame: The lower triangular matrix F, in standard deviations of each gap; shape ``(numel, numel)``.
            ratios: The ratio of mean and standard deviation of each gap. The bend is kept off the bulk of the gaps as
                far as the wall allows.
        """
        self.center.value.copy_(center)
        self.frame.value.copy_(frame)
        self.bend.copy_(-(ratios - 1).clamp(2.0, 6.0))

    def _factor(self) -> Tensor:
        return self.below.tril(-1) + torch.diag(self.log_diagonal.exp())

    def _log_diagonal(self, like: Tensor) -> Tensor:
        return self.log_diagonal + self.frame(like).diagonal().log()

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        u, free = x[..., : self.gaps], x[..., self.gaps :]
        known = bounded(u)
        log_diagonal = self._log_diagonal(x)
        scale = log_diagonal[: self.gaps].exp()
        image = (torch.cat([known, free], -1) @ self._factor().T + self.shift) @ self.frame(x).T + self.center(x)
        bent, log_slope = _bent(u, image[..., : self.gaps] - scale * known, scale, self.bend)
        ladj = log_slope.sum(-1) + log_diagonal[self.gaps :].sum()
        return torch.cat([bent, image[..., self.gaps :]], -1), ladj

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        frame, log_diagonal = self.frame(y), self._log_diagonal(y)
        matrix, offset = frame @ self._factor(), self.shift @ frame.T + self.center(y)
        scale = log_diagonal[: self.gaps].exp()
        found: list[Tensor] = []
        known = y[..., :0]
        total = y.new_zeros(y.shape[:-1])
        for index in range(self.gaps):
            shift = known @ matrix[index, :index] + offset[index]
            u, log_slope = _bent(y[..., index], shift, scale[index], self.bend[index], inverse=True)
            found.append(u)
            known = torch.cat([known, bounded(u)[..., None]], -1)
            total = total + log_slope
        known_part = matrix[self.gaps :, : self.gaps]
        free = y[..., self.gaps :] - offset[self.gaps :] - known @ known_part.T
        if free.shape[-1]:
            upper, rows = matrix[self.gaps :, self.gaps :].T, free.reshape(-1, free.shape[-1])
            free = torch.linalg.solve_triangular(upper, rows, upper=True, left=False).reshape(free.shape)
        u = torch.stack(found, -1) if found else y[..., :0]
        return torch.cat([u, free], -1), total - log_diagonal[self.gaps :].sum()


def _bent(u: Tensor, shift: Tensor, scale: Tensor, bend: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """The increasing map that is the identity far below the bend and ``shift + scale * u`` above it."""
    bottom = bend - _BEND
    # a shift far down is limited, so that the map is the identity below the same point for all shifts
    least = bottom + 0.5
    top = least + functional.softplus(shift + scale * bend - least, beta=_SHARPNESS)
    width = torch.full_like(bottom, _BEND)
    return rational_quadratic(
        u, (bottom, bottom), (width, top - bottom), (torch.ones_like(scale), scale), inverse=inverse
    )
