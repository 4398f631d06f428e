"""From free numbers to the knots of monotone splines: widths, heights and slopes, with or without bounds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.serialization.registry import registered

__all__ = ["BoundedKnots", "FreeKnots", "Knots", "knots_of_file"]

_LARGEST_LOG_HEIGHT = 3.0
_SMALLEST = 1e-3  # of FreeKnots: shares, and slopes
_STORED = "bounds.value"


class Knots(nn.Module):
    """How splines of K pieces read their widths, heights and slopes from free numbers; all numbers 0: the identity."""

    scales_shift: bool
    """Whether a shift behind the spline is in units of the scale behind it: y = e^s (S(x) + t), or e^s S(x) + t."""

    def widths(self, raw: Tensor) -> Tensor:
        """The pieces' shares of the whole width, shape (..., K), from as many numbers."""
        raise NotImplementedError

    def heights(self, raw: Tensor, widths: Tensor) -> Tensor:
        """The pieces' shares of the whole height, shape (..., K), from as many numbers and the shares of the width."""
        raise NotImplementedError

    def slopes(self, raw: Tensor, secants: Tensor) -> Tensor:
        """The slopes at the knots, shape (..., K + 1), from as many numbers and the pieces' secants, shape (..., K)."""
        raise NotImplementedError

    def log_height(self, raw: Tensor) -> Tensor:
        """The logarithm of the whole height over the whole width, from one number."""
        raise NotImplementedError


@registered
class BoundedKnots(Knots):
    r"""Knots whose spline can be inverted in single precision, whatever the free numbers are.

    No piece is narrower than ``smallest`` / K of the whole width. The logarithms of the pieces' secants (height over
    width) are kept, smoothly, within an interval of the length log ``secant``. So every secant lies between
    1 / ``secant`` and ``secant`` times the secant of the whole, and no two differ by more than that factor. The slope
    at a knot is the harmonic mean of the two secants beside it (at the ends, the one), times a factor from
    1 / ``slope`` to ``slope``. The whole height is between e^-3 and e^3 times the whole width.

    A rational-quadratic piece with the secant s between knots of slopes up to D is nowhere flatter than about
    :math:`2 s^2 / (D + s)`. A harmonic mean is at most twice the smaller secant, so D is at most 2 ``slope`` s, and all
    slopes of the spline lie between 2 / ((2 ``slope`` + 1) ``secant``) and 2 ``slope`` ``secant`` times the secant of
    the whole: 1/80 and 128 by default. Bounds on heights and slopes each on their own do not give that, since knots
    much steeper than the secant between them make the middle of the piece flat.

    Args:
        smallest: the least width of a piece, as a share of the mean width; in (0, 1).
        secant: bound of the ratio of two secants; above 1.
        slope: bound of the ratio of a knot's slope and the harmonic mean of the secants beside it; above 1.

    Raises:
        ValueError: a bound outside its range.

    Example:
        >>> knots = BoundedKnots(secant=10.0)
        >>> widths = knots.widths(torch.tensor([0.0, 50.0]))
        >>> heights = knots.heights(torch.tensor([-50.0, 50.0]), widths)
        >>> widths, heights / widths
        (tensor([0.1000, 0.9000]), tensor([0.1099, 1.0989]))
    """

    scales_shift = True

    def __init__(self, *, smallest: float = 0.2, secant: float = 32.0, slope: float = 2.0) -> None:
        super().__init__()
        if not 0 < smallest < 1 or not 1 < secant < math.inf or not 1 < slope < math.inf:
            raise ValueError(
                "expected the smallest width in (0, 1), and secant and slope above 1 and finite, got "
                f"{smallest}, {secant} and {slope}"
            )
        # saved with the weights, which mean something only under the bounds that they were trained with
        self.bounds = FixedBasis(torch.tensor([smallest, secant, slope], dtype=torch.float64))
        self._read(self.bounds.value)

    def _read(self, bounds: Tensor) -> None:
        self.smallest, self.secant, self.slope = bounds.tolist()

    def computed_arguments(self) -> dict[str, Any]:
        """The bounds: weights that are loaded bring theirs with them."""
        return {"smallest": self.smallest, "secant": self.secant, "slope": self.slope}

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        if (stored := state_dict.get(f"{prefix}{_STORED}")) is not None:
            self._read(stored.double())
        super()._load_from_state_dict(state_dict, prefix, *args)

    def widths(self, raw: Tensor) -> Tensor:
        return self.smallest / raw.shape[-1] + (1 - self.smallest) * raw.softmax(-1)

    def heights(self, raw: Tensor, widths: Tensor) -> Tensor:
        parts = widths * _within(raw, 0.5 * math.log(self.secant)).exp()
        return parts / parts.sum(-1, keepdim=True)

    def slopes(self, raw: Tensor, secants: Tensor) -> Tensor:
        flatness = secants.reciprocal()
        flatness = torch.cat([flatness[..., :1], flatness, flatness[..., -1:]], -1)  # beside the ends: their own
        mean = 2 / (flatness[..., :-1] + flatness[..., 1:])
        return mean * _within(raw, math.log(self.slope)).exp()

    def log_height(self, raw: Tensor) -> Tensor:
        return _within(raw, _LARGEST_LOG_HEIGHT)

    def extra_repr(self) -> str:
        return f"smallest={self.smallest:g}, secant={self.secant:g}, slope={self.slope:g}"


@registered
class FreeKnots(Knots):
    """Knots without bounds of their relative sizes: shares of at least 0.001, slopes of at least 0.001.

    Files that were written before there were bounds mean these. In single precision the inverse of such a spline can be
    off by more than the whole interval, since a piece may be nearly flat; new layers take :class:`BoundedKnots`.

    Example:
        >>> FreeKnots().widths(torch.tensor([0.0, 50.0]))
        tensor([0.0010, 0.9990])
    """

    scales_shift = False

    def widths(self, raw: Tensor) -> Tensor:
        return _SMALLEST + (1 - _SMALLEST * raw.shape[-1]) * raw.softmax(-1)

    def heights(self, raw: Tensor, widths: Tensor) -> Tensor:
        return self.widths(raw)

    def slopes(self, raw: Tensor, secants: Tensor) -> Tensor:
        return _SMALLEST + functional.softplus(raw + math.log(math.expm1(1 - _SMALLEST)))

    def log_height(self, raw: Tensor) -> Tensor:
        return raw


def knots_of_file(knots: Knots, state_dict: Mapping[str, Tensor], prefix: str) -> Knots:
    """The knots that stored weights mean: those given, or :class:`FreeKnots` where the weights come with no bounds.

    Args:
        knots: of the layer that is about to load the weights.
        state_dict: the weights.
        prefix: of the names of the knots' tensors in them.
    """
    return FreeKnots() if isinstance(knots, BoundedKnots) and f"{prefix}{_STORED}" not in state_dict else knots


def _within(raw: Tensor, bound: float) -> Tensor:
    """A number smoothly kept within a bound; the identity to second order at 0."""
    return bound * torch.tanh(raw / bound)
