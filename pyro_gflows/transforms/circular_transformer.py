"""ElementwiseCircularSpline: a spline of the circle for every coordinate, with knots from a conditioner."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn import BoundedKnots, Knots
from pyro_gflows.nn.circular_knots import circular_pieces, mirrored
from pyro_gflows.numerics import circular_spline
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.spline import MOST_BINS
from pyro_gflows.transforms.transformers import Transformer

__all__ = ["ElementwiseCircularSpline"]


@registered
class ElementwiseCircularSpline(Transformer):
    r"""A transformer with a spline of the circle for every angle, for groups that permute angles up to signs.

    .. math:: y_i = S_i(x_i) + t_i, \qquad \log|\det J| = \sum_i \log S_i'(x_i)

    It is the default for layers on a torus. S_i is a :func:`~pyro_gflows.numerics.circular_spline`: an increasing
    rational-quadratic spline with :math:`S_i(x + 2\pi) = S_i(x) + 2\pi` and a continuous derivative, and t_i is a phase
    shift. One knot is at :math:`-\pi`, and one at 0. Each parameter of the other knots is e + o on the right of 0 and e
    - o on the left: where a group element changes the sign of angle i, it leaves e unchanged and changes the signs of o
    and of t_i. So a permutation permutes the splines, and a reflection reverses the pieces, :math:`S(-x) \to -S(x)`.
    Translations are no part of the action here, since a layer subtracts from the angles what the group adds to them.
    Both directions have a closed form, and zero parameters give the identity.

    Args:
        action: How the group acts on the angles, apart from translations.
        bins: The number of pieces of each spline, which is even.
        knots: How the parameters become widths, heights and slopes, and within which bounds; by default
            :class:`~pyro_gflows.nn.BoundedKnots`.

    Raises:
        ValueError: The group does not permute coordinates up to signs, or bins are not even.

    Source: Normalizing Flows on Tori and Spheres, arXiv:2002.02428; Neural Spline Flows, arXiv:1906.04032.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> spline = ElementwiseCircularSpline(VectorAction.signs(1), bins=4)
        >>> spline.params_action
        VectorAction(C2 on R^13: 7 x |sign 0| + 6 x sign 0)
        >>> x, params = torch.ones(1), torch.linspace(-1, 1, 13)
        >>> reflected = spline.params_action.act(1, params)
        >>> torch.allclose(spline(-x, reflected)[0], -spline(x, params)[0])
        True
    """

    periodic = True

    def __init__(self, action: LinearAction, *, bins: int = 8, knots: Knots | None = None) -> None:
        super().__init__(action)
        if not action.is_signed_permutation:
            raise ValueError(f"a circular spline commutes with (signed) permutations only, got {action}")
        if bins < 2 or bins % 2 or bins > MOST_BINS:
            raise ValueError(f"expected an even number of bins from 2 to {MOST_BINS}, got {bins}")
        self.bins = bins
        self.knots = BoundedKnots() if knots is None else knots
        half = bins // 2
        # widths, heights and slopes on one side of 0, the slope at 0 among them, and that at the seam or the phase
        self.even, self.odd = [half, half, half, 1], [half, half, half - 1, 1]
        self.params_action = action.absolute().copies(sum(self.even)).direct_sum(action.copies(sum(self.odd)))

    def _parameters_of(self, params: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor, Tensor]]:
        """The phase, and the pieces of the spline along a last dimension."""
        params = self._by_coordinate(params, mask)
        *even, seam = params[..., : sum(self.even)].split(self.even, -1)
        *odd, phase = params[..., sum(self.even) :].split(self.odd, -1)
        widths, heights, slopes = (mirrored(e, o) for e, o in zip(even, odd, strict=True))
        return phase.squeeze(-1), circular_pieces(self.knots, widths, heights, torch.cat([seam, slopes], -1))

    def _ladj(self, log_slopes: Tensor) -> Tensor:
        return log_slopes.flatten(log_slopes.ndim - self.action.event_dim).sum(-1)

    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        phase, (widths, heights, slopes) = self._parameters_of(params, mask)
        image, log_slope = circular_spline(x, (widths, heights), slopes)
        return image + phase, self._ladj(log_slope)

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        phase, (widths, heights, slopes) = self._parameters_of(params, mask)
        image, log_slope = circular_spline(y - phase, (widths, heights), slopes, inverse=True)
        return image, self._ladj(log_slope)

    def computed_arguments(self) -> dict[str, Any]:
        """The knots: loaded weights bring their own."""
        return {"knots": self.knots}

    def extra_repr(self) -> str:
        return f"{self.bins} bins on the circle"
