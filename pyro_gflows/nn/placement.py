"""Placing particles one after another, each with a density that depends on those placed before."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.distance_function import DistanceFunction
from pyro_gflows.nn.look_ahead import LookAhead
from pyro_gflows.nn.placement_grids import Coarser, PlacementGrids, direction_grids, refined
from pyro_gflows.numerics.log_linear import LogLinear

__all__ = ["Placed", "Placement"]

_WARP = 1.5  # the knots of a radius are e^1.5 times as far apart at the end as at the start
_SAFE = 1e-8

_TAIL = 8.0  # the rate of decay beyond the last knot, where the knots have length 1

_Coarse = tuple[Coarser | None, Coarser | None]


@dataclass(frozen=True)
class Placed:
    """The particles around the center that are placed already.

    Attributes:
        radii: Distances from the center, shape ``(batch, particles)``.
        units: Their directions, shape ``(batch, particles, d)``.
        pairs: All distances between two of them or from the center, shape ``(batch, pairs)``.
    """

    radii: Tensor
    units: Tensor
    pairs: Tensor

    def squares(self, radii: Tensor, units: Tensor) -> Tensor:
        """Squared distances of a grid of positions from these particles.

        Args:
            radii: Shape ``(batch, radii)``.
            units: Directions, shape ``(directions, d)`` or ``(batch, directions, d)``.

        Returns:
            Shape ``(batch, particles, radii, directions)``; particles come first, as sums over them are then fast.
        """
        cosines = self.units @ units.mT
        along = (radii[:, None] - self.radii[:, :, None]).square()
        across = 2 * radii[:, None] * self.radii[:, :, None]
        # never negative: rounding would show where two particles meet
        return torch.addcmul(along[..., None], across[..., None], (1 - cosines).clamp_min(0)[:, :, None])

    def with_one_more(self, radius: Tensor, unit: Tensor) -> Placed:
        """These particles and another one.

        Args:
            radius: Shape ``(batch,)``.
            unit: Shape ``(batch, d)``.
        """
        new = (self.squares(radius[:, None], unit[:, None])[:, :, 0, 0] + _SAFE).sqrt()
        return Placed(
            torch.cat([self.radii, radius[:, None]], 1),
            torch.cat([self.units, unit[:, None]], 1),
            torch.cat([self.pairs, radius[:, None], new], 1),
        )


class Placement(nn.Module):
    r"""The densities of radius and direction of each particle around a center, given those placed before.

    The particles are placed by increasing distance from the center. Step k has a *field*, the log-weight of a would-be
    position y: a sum of one learned function of the distances :math:`|y - x_j|` from all placed particles (for the last
    particle of a system with forces between pairs this is the exact form), a function of :math:`|y|`, and a small
    network (:class:`LookAhead`) for the particles to come. The radius has the density of the field averaged over
    directions, on a grid; the direction then has the density of the field at that radius. The fields are functions of
    distances, so the densities are invariant under rotations and reflections.

    Args:
        n: The number of particles, the center included.
        d: The dimension of the space, 2 or 3.
        shortest: A distance below which particles hardly ever are; it must be positive.
        longest: A distance above which particles hardly ever are.
        grids: The resolution of the conditionals.
        width: The hidden features of the network.
    """

    def __init__(self, n: int, d: int, *, shortest: float, longest: float, grids: PlacementGrids, width: int) -> None:
        super().__init__()
        self.n, self.d, self.longest, self.grids = n, d, longest, grids
        self.pair = DistanceFunction(shortest, longest)
        self.radial = nn.ModuleList(DistanceFunction(shortest, longest, coefficients=12) for _ in range(n - 2))
        self.ahead = LookAhead(shortest, longest, steps=max(n - 3, 0), width=width)
        first, later = direction_grids(d, grids)
        self.first_units, self.first_weights = FixedBasis(first.units), FixedBasis(first.log_weights)
        self.later_units, self.later_weights = FixedBasis(later.units), FixedBasis(later.log_weights)
        self.refine = FixedBasis(refined(grids.radii, grids.refine))
        self.along = Coarser.interval(grids.radii, 4)
        self.around_ring = Coarser.circle(grids.ring, 4)
        self.around_first: Coarser | None = None
        if d == 2:
            self.around_first = Coarser.interval(grids.angles // 2 + 1, 4)
            self.around_later = Coarser.circle(grids.angles, 4)
        else:
            every = Coarser(torch.arange(grids.cosines), torch.eye(grids.cosines))
            self.around_later = Coarser.product(every, Coarser.circle(grids.angles // 2, 3))
            self.on_sphere = Coarser.product(Coarser.interval(grids.polar, 4), Coarser.circle(grids.angles, 4))

    # -- the field ----------------------------------------------------------------------------------------------------
    def field(self, placed: Placed, radii: Tensor, units: Tensor, coarser: _Coarse = (None, None)) -> Tensor:
        """The log-weights of positions of the next particle, up to a function of the radius.

        Args:
            placed: The particles that are placed, at least one.
            radii: Shape ``(batch, radii)``.
            units: Directions, shape ``(directions, d)`` or ``(batch, directions, d)``.
            coarser: At which radii and directions the network is evaluated.

        Returns:
            Shape ``(batch, radii, directions)``.
        """
        squares = placed.squares(radii, units)
        value: Tensor = self.pair(squares).sum(1)
        step = placed.radii.shape[1] - 1
        if step < self.n - 3:  # nobody comes after the last particle
            for dim, along in enumerate(coarser, 1):
                squares = squares if along is None else along.some(squares, dim + 1)
            radii = radii if coarser[0] is None else coarser[0].some(radii, 1)
            ahead = self.ahead(step, radii, (squares + _SAFE).sqrt(), placed.pairs)
            for dim, along in enumerate(coarser, 1):
                ahead = ahead if along is None else along(ahead, dim)
            value = value + ahead
        return value

    # -- the conditionals ---------------------------------------------------------------------------------------------
    def radius(self, placed: Placed, known: Tensor | None, uniform: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """The distance of the next particle from the center, known or drawn, and its log-density.

        Args:
            placed: The particles that are placed, possibly none.
            known: The distance, shape ``(batch,)``; None to draw it.
            uniform: What it is drawn from, uniform in [0, 1), shape ``(batch,)``.
        """
        step = placed.radii.shape[1]
        last = placed.radii[:, -1] if step else placed.radii.new_zeros(len(placed.radii))
        width = (self.longest - last).clamp_min(self.longest / 4)
        spacings = (self.grids.radii - 1) * self.grids.refine
        knots = torch.linspace(0, 1, spacings + 1, dtype=last.dtype, device=last.device)
        # of the volume r^(d-1) dr; no knot is quite at r = 0
        radii = last[:, None] + width[:, None] * _warped(knots)
        logits = (self.d - 1) * (radii + 0.1 * width[:, None] / spacings).log() + _WARP * knots
        logits = logits + self.pair(radii.square())
        if step < len(self.radial):
            logits = logits + self.radial[step](radii.square())
        if step:
            logits = logits + self._averaged(placed, radii[:, :: self.grids.refine])
        density = LogLinear(logits, tail=torch.full_like(last, _TAIL / spacings))
        t = _position(density, uniform) if known is None else _unwarped((known - last) / width) * spacings
        slope = width.log() + _log_warp_slope(t / spacings) - math.log(spacings)
        radius = last + width * _warped(t / spacings) if known is None else known
        return radius, density.log_prob(t) - slope

    def _averaged(self, placed: Placed, radii: Tensor) -> Tensor:
        """The log of the field's mean over directions, at all knots."""
        first = placed.radii.shape[1] == 1
        units, weights = (self.first_units, self.first_weights) if first else (self.later_units, self.later_weights)
        around = self.around_first if first else self.around_later
        field = self.field(placed, radii, units(radii), (self.along, around)) + weights(radii)
        averaged: Tensor = field.logsumexp(-1) @ self.refine(radii).mT
        return averaged

    def direction(
        self, placed: Placed, radius: Tensor, known: Tensor | None, uniforms: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """The direction of the next particle, known or drawn, and its log-density on the circle or the sphere.

        In the plane the first direction is at angle 0. In space it is the polar axis, and the azimuth of the second
        direction is 0; its density is that of the polar angle only.

        Args:
            placed: The particles that are placed, at least one.
            radius: The distance of the next particle from the center, shape ``(batch,)``.
            known: The direction, shape ``(batch, d)``; None to draw it.
            uniforms: What it is drawn from, uniform in [0, 1), shape ``(batch, d - 1)``.
        """
        angle_from, cosine_from = (None, None) if uniforms is None else (uniforms[:, -1], uniforms[:, 0])
        cosine = log_q = torch.zeros_like(radius)
        if self.d == 3:
            cosine, log_q = self._cosine(placed, radius, None if known is None else known[:, 2], cosine_from)
            if placed.radii.shape[1] == 1:
                zero = torch.zeros_like(cosine)
                return (self._units(zero, cosine) if known is None else known), log_q
        spacing = 2 * math.pi / self.grids.ring
        angles = self._arange(self.grids.ring, radius) * spacing - math.pi
        units = self._units(angles, cosine[:, None])
        logits = self.field(placed, radius[:, None], units, (None, self.around_ring))[:, 0]
        density = LogLinear(torch.cat([logits, logits[:, :1]], 1))
        if known is None:
            t = _position(density, angle_from)
            unit = self._units(t * spacing - math.pi, cosine)
        else:
            unit, t = known, ((torch.atan2(known[:, 1], known[:, 0]) + math.pi) / spacing).clamp(0, self.grids.ring)
        return unit, log_q + density.log_prob(t) - math.log(spacing)

    def _cosine(
        self, placed: Placed, radius: Tensor, known: Tensor | None, uniform: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The cosine of the polar angle, of which the density is the field averaged over azimuths."""
        first = placed.radii.shape[1] == 1
        count, azimuths = (3 * self.grids.polar, 1) if first else (self.grids.polar, self.grids.angles)
        spacing = 2 / (count - 1)
        cosines = self._arange(count, radius) * spacing - 1
        units = self._units(self._arange(azimuths, radius) * (2 * math.pi / azimuths), cosines[:, None])
        coarser = None if first else self.on_sphere
        field = self.field(placed, radius[:, None], units.flatten(0, 1), (None, coarser))[:, 0]
        density = LogLinear(field.unflatten(-1, (count, azimuths)).logsumexp(-1))
        t = _position(density, uniform) if known is None else ((known + 1) / spacing).clamp(0, count - 1)
        cosine = t * spacing - 1 if known is None else known
        return cosine, density.log_prob(t) - math.log(spacing)

    def _units(self, angles: Tensor, cosine: Tensor) -> Tensor:
        """The unit vectors with these azimuths and cosines of the polar angle, or in the plane with these angles."""
        angles, cosine = torch.broadcast_tensors(angles, cosine)
        plane = torch.stack([angles.cos(), angles.sin()], -1)
        if self.d == 2:
            return plane
        sine = ((1 - cosine) * (1 + cosine)).clamp_min(_SAFE**2).sqrt()
        return torch.cat([sine[..., None] * plane, cosine[..., None]], -1)

    @staticmethod
    def _arange(count: int, like: Tensor) -> Tensor:
        return torch.arange(count, dtype=like.dtype, device=like.device)


def _position(density: LogLinear, uniform: Tensor | None) -> Tensor:
    if uniform is None:
        raise ValueError("expected what is known of the particle, or uniform variables to draw it from, got neither")
    return density.icdf(uniform)


def _warped(t: Tensor) -> Tensor:
    """A map of [0, 1] to itself, with finer steps near 0."""
    return torch.expm1(_WARP * t) / math.expm1(_WARP)


def _unwarped(s: Tensor) -> Tensor:
    return torch.log1p(s * math.expm1(_WARP)) / _WARP


def _log_warp_slope(t: Tensor) -> Tensor:
    return _WARP * t + math.log(_WARP / math.expm1(_WARP))
