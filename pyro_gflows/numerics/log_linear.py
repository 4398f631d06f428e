"""Densities of one variable whose logarithm is linear between equidistant knots."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.precision import full_precision

__all__ = ["LogLinear"]

_SERIES_BELOW = 0.05  # where sinh(x)/x and log1p(x)/x come from their series


class LogLinear:
    r"""A density on an interval whose logarithm is linear between knots, given by unnormalized values at the knots.

    It is the conditional density of an autoregressive flow that knows the *shape* of a conditional on a grid: any
    positive density, with several modes or walls, which is normalized, integrated and inverted in closed form.

    Positions t are in units of the spacing of the knots, which are at t = 0, 1, ..., K. With logits :math:`l_k` at the
    knots the density is :math:`q(t) = e^{l(t)} / Z`, where l interpolates linearly and Z is a sum over the pieces of
    :math:`e^{(l_k + l_{k+1})/2} \sinh(\delta_k)/\delta_k` with :math:`\delta_k = (l_{k+1} - l_k)/2`. With a ``tail``
    rate :math:`\kappa` it goes on beyond the last knot as :math:`e^{l_K - \kappa (t - K)}`, so that it is positive on
    all of :math:`[0, \infty)`. On a circle give the first logit once more at the end.

    Args:
        logits: Values at the knots, shape ``batch_shape + (K + 1,)``, with K >= 1.
        tail: Rates of decay beyond the last knot, per spacing, positive, shape ``batch_shape``; None for no tail.

    Example:
        >>> density = LogLinear(torch.tensor([0.0, 1.0, 0.0]))
        >>> t = density.icdf(torch.tensor(0.5))
        >>> round(t.item(), 4), round(density.cdf(t).item(), 4), round(density.log_prob(t).item(), 4)
        (1.0, 0.5, -0.2345)
    """

    def __init__(self, logits: Tensor, tail: Tensor | None = None) -> None:
        self.logits, self.tail = logits, tail
        self.pieces = logits.shape[-1] - 1
        first, last = logits[..., :-1], logits[..., 1:]
        masses = 0.5 * (first + last) + _log_sinhc(0.5 * (last - first))
        if tail is not None:
            masses = torch.cat([masses, (logits[..., -1] - tail.log())[..., None]], -1)
        self._log_normalizer = masses.logsumexp(-1)
        self._masses = (masses - self._log_normalizer[..., None]).exp()

    @full_precision
    def log_prob(self, t: Tensor) -> Tensor:
        """The log-density at positions.

        Args:
            t: Positions, in [0, K], or at least 0 where there is a tail; shape ``batch_shape``.
        """
        _, start, rise, offset = self._piece(t)
        value = start + rise * offset
        if self.tail is not None:
            value = torch.where(t > self.pieces, start + rise - self.tail * (t - self.pieces), value)
        return value - self._log_normalizer

    @full_precision
    def cdf(self, t: Tensor) -> Tensor:
        """The probability of lower positions.

        Args:
            t: Positions, as for :meth:`log_prob`.
        """
        index, start, rise, offset = self._piece(t)
        before = (self._masses.cumsum(-1) - self._masses).gather(-1, index)[..., 0]
        half = 0.5 * rise * offset
        value = before + offset * (start + half + _log_sinhc(half) - self._log_normalizer).exp()
        if self.tail is not None:
            beyond = self._masses[..., -1] * (-self.tail * (t - self.pieces).clamp_min(0)).exp()
            value = torch.where(t > self.pieces, 1 - beyond, value)
        return value

    @full_precision
    def icdf(self, u: Tensor) -> Tensor:
        """The positions below which there is a given probability, with gradients by the implicit function theorem.

        Args:
            u: Probabilities in [0, 1), shape ``batch_shape``.
        """
        with torch.no_grad():
            t = self._solve(u)
        if not (torch.is_grad_enabled() and (self.logits.requires_grad or u.requires_grad)):
            return t
        missing = u - self.cdf(t)
        return t + (missing - missing.detach()) / self.log_prob(t).detach().exp()

    def _piece(self, t: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The piece of each position, the logit at its start, how much it rises, and the position inside."""
        index = t.detach().floor().clamp(0, self.pieces - 1).nan_to_num().long()[..., None]  # the offset passes NaN on
        start = self.logits.gather(-1, index)[..., 0]
        rise = self.logits.gather(-1, index + 1)[..., 0] - start
        return index, start, rise, t - index[..., 0].to(t.dtype)

    def _solve(self, u: Tensor) -> Tensor:
        reached = self._masses.cumsum(-1)
        target = (u * reached[..., -1])[..., None].contiguous()
        index = torch.searchsorted(reached.contiguous(), target, right=True).clamp_max(self._masses.shape[-1] - 1)
        mass = self._masses.gather(-1, index)
        share = (target - reached.gather(-1, index) + mass) / mass.clamp_min(torch.finfo(u.dtype).tiny)
        share = share.clamp(0, 1)[..., 0]
        inner = index.clamp_max(self.pieces - 1)
        rise = (self.logits.gather(-1, inner + 1) - self.logits.gather(-1, inner))[..., 0]
        t = inner[..., 0].to(u.dtype) + _inside(share, rise)
        if self.tail is not None:
            far = self.pieces - torch.log1p(-share.clamp_max(1 - torch.finfo(u.dtype).eps)) / self.tail
            t = torch.where(index[..., 0] >= self.pieces, far, t)
        return t


def _log_sinhc(x: Tensor) -> Tensor:
    """log(sinh(x)/x), also for large x, with its series near 0."""
    size = x.abs()
    small = size < _SERIES_BELOW
    safe = torch.where(small, torch.ones_like(size), size)
    square = torch.where(small, x, torch.zeros_like(x)).square()
    series = square * (1 / 6 - square * (1 / 180 - square * (1 / 2835 - square / 37800)))
    return torch.where(small, series, safe + (-torch.expm1(-2 * safe) / (2 * safe)).log())


def _inside(share: Tensor, rise: Tensor) -> Tensor:
    """The position in a piece below which there is this share of its mass, where the logit rises by ``rise``."""
    size = rise.abs()
    small = size < 1e-4
    safe = torch.where(small, torch.ones_like(size), size)
    # a falling piece is a rising one seen from its end: both are exact where e^rise overflows
    lower = torch.where(rise > 0, 1 - share, share)
    from_end = -torch.log1p(lower * torch.expm1(-safe)) / safe
    position = torch.where(rise > 0, 1 - from_end, from_end)
    return torch.where(small, share + 0.5 * rise * share * (1 - share), position).clamp(0, 1)
