"""The knots of monotone splines (widths, heights and slopes) from unconstrained parameters, with or without bounds."""

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
_SMALLEST = 1e-3  # the least share and the least slope of FreeKnots
_STORED = "bounds.value"


class Knots(nn.Module):
    """How a monotone spline of K pieces computes its widths, heights and slopes from unconstrained parameters.

    A conditioner may return any real parameters, while the widths, heights and slopes of an increasing function must be
    positive. This base class maps the parameters to the widths, heights and slopes. The ready-made ones are
    :class:`BoundedKnots`, for all new layers, and :class:`FreeKnots`, for old files. Parameters that are all zero give
    the identity function.

    Attributes:
        scales_shift: Whether a shift t after the spline S is multiplied by the scale e^s after the spline. If true, the
            map is y = e^s (S(x) + t); otherwise it is y = e^s S(x) + t.

    Example:
        >>> knots: Knots = BoundedKnots()
        >>> knots.widths(torch.zeros(4))
        tensor([0.2500, 0.2500, 0.2500, 0.2500])
    """

    scales_shift: bool

    def widths(self, raw: Tensor) -> Tensor:
        """The shares of the pieces in the whole width, shape ``(..., K)``, which sum to one.

        Args:
            raw: Unconstrained parameters of shape ``(..., K)``.
        """
        raise NotImplementedError

    def heights(self, raw: Tensor, widths: Tensor) -> Tensor:
        """The shares of the pieces in the whole height, shape ``(..., K)``, which sum to one.

        Args:
            raw: Unconstrained parameters of shape ``(..., K)``.
            widths: The shares of the width, shape ``(..., K)``.
        """
        raise NotImplementedError

    def slopes(self, raw: Tensor, secants: Tensor) -> Tensor:
        """The slopes at the knots, shape ``(..., K + 1)``.

        Args:
            raw: Unconstrained parameters of shape ``(..., K + 1)``.
            secants: The ratio of height to width of each piece, shape ``(..., K)``.
        """
        raise NotImplementedError

    def log_height(self, raw: Tensor) -> Tensor:
        """The logarithm of the ratio of the whole height to the whole width, from one unconstrained parameter."""
        raise NotImplementedError


@registered
class BoundedKnots(Knots):
    """Knots whose spline can be inverted accurately in single precision, for all unconstrained parameters.

    No piece is narrower than ``smallest`` / K of the whole width. The logarithms of the secants (height over width of a
    piece) are kept, smoothly, within an interval of length log ``secant``. So every secant lies between 1 / ``secant``
    and ``secant`` times the secant of the whole spline, and no two secants differ by more than that factor. The slope
    at a knot is the harmonic mean of the secants on both sides (at the ends, the one secant there), times a factor
    between 1 / ``slope`` and ``slope``. The whole height is between e^-3 and e^3 times the whole width.

    A rational-quadratic piece with secant s between knots of slopes up to D has slopes of at least about :math:`2 s^2 /
    (D + s)`. A harmonic mean is at most twice the smaller secant, so D is at most 2 ``slope`` s, and all slopes of the
    spline lie between 2 / ((2 ``slope`` + 1) ``secant``) and 2 ``slope`` ``secant`` times the secant of the whole
    spline: between 1/80 and 128 by default. Separate bounds on heights and on slopes would not suffice, since a piece
    between knots that are much steeper than its secant is flat in the middle.

    Args:
        smallest: The least width of a piece, as a share of the mean width; in (0, 1).
        secant: The largest ratio of two secants; above 1.
        slope: The largest ratio of the slope at a knot and the harmonic mean of the secants on both sides; above 1.

    Raises:
        ValueError: If an argument is outside its range.

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
        """The bounds as constructor arguments; weights that are loaded bring their bounds with them."""
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
        flatness = torch.cat([flatness[..., :1], flatness, flatness[..., -1:]], -1)  # an end knot has one secant
        mean = 2 / (flatness[..., :-1] + flatness[..., 1:])
        return mean * _within(raw, math.log(self.slope)).exp()

    def log_height(self, raw: Tensor) -> Tensor:
        return _within(raw, _LARGEST_LOG_HEIGHT)

    def extra_repr(self) -> str:
        return f"smallest={self.smallest:g}, secant={self.secant:g}, slope={self.slope:g}"


@registered
class FreeKnots(Knots):
    """Knots without bounds on ratios: the shares of width and height, and the slopes, are only at least 0.001.

    Flows that were saved before :class:`BoundedKnots` existed use these. A piece of such a spline may be nearly flat,
    so that its inverse in single precision can be off by more than the whole interval. New layers use
    :class:`BoundedKnots`.

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
    """The knots that stored weights were trained with: ``knots``, or :class:`FreeKnots` if no bounds are stored.

    Args:
        knots: The knots of the layer that is about to load the weights.
        state_dict: The stored weights.
        prefix: The prefix of the names of the tensors of the knots in ``state_dict``.

    Example:
        >>> knots = BoundedKnots()
        >>> knots_of_file(knots, knots.state_dict(), "") is knots, knots_of_file(knots, {}, "")
        (True, FreeKnots())
    """
    return FreeKnots() if isinstance(knots, BoundedKnots) and f"{prefix}{_STORED}" not in state_dict else knots


def _within(raw: Tensor, bound: float) -> Tensor:
    """Map a parameter smoothly into (-bound, bound), by the identity to second order at 0."""
    # a tanh, by the logistic function, which torch computes several times faster
    return 2 * bound * (torch.sigmoid(raw * (2 / bound)) - 0.5)
