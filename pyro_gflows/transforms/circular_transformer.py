"""ElementwiseCircularSpline: a spline of the circle for every coordinate, with knots from a conditioner."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from pyro_gflows.actions import LinearAction, TorusAction
from pyro_gflows.nn import BoundedKnots, Knots
from pyro_gflows.nn.circular_fields import CircularFields
from pyro_gflows.nn.circular_knots import circular_pieces, mean_displacement
from pyro_gflows.numerics import circular_spline
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.spline import MOST_BINS
from pyro_gflows.transforms.transformers import Transformer

__all__ = ["ElementwiseCircularSpline"]


@registered
class ElementwiseCircularSpline(Transformer):
    r"""A transformer with a spline of the circle for every angle, for groups that exchange, reflect and shift angles.

    .. math:: y_i = S_i(x_i) + t_i, \qquad \log|\det J| = \sum_i \log S_i'(x_i)

    It is the default for layers on a torus. S_i is a :func:`~pyro_gflows.numerics.circular_spline`: an increasing
    rational-quadratic spline with :math:`S_i(x + 2\pi) = S_i(x) + 2\pi` and a continuous derivative, and t_i is a phase
    shift. The group permutes the pieces of all splines: an exchange of angles exchanges splines, a reflection reverses
    the pieces, :math:`S(-x) \to -S(x)`, and changes the sign of the phase, and a translation by :math:`2\pi / s` shifts
    them by a share 1 / s of their number. For this the first of K pieces begins at :math:`-\pi`, every K / s-th at a
    multiple of :math:`2\pi / s` from there, and the phase is the mean displacement of these knots. Both directions have
    a closed form, and zero parameters give the identity.

    Args:
        action: How the group acts on the angles: an action on a torus, or one by signed permutations on vectors, which
            has no translations.
        bins: The number of pieces of each spline; it is rounded up to a multiple of s.
        knots: How the parameters become widths, heights and slopes, and within which bounds; by default
            :class:`~pyro_gflows.nn.BoundedKnots`.

    Raises:
        ValueError: The group does not permute coordinates up to signs, there are infinitely many translations, or the
            number of bins is not in 2..998.

    Source: Normalizing Flows on Tori and Spheres, arXiv:2002.02428; Neural Spline Flows, arXiv:1906.04032.

    Example:
        >>> import torch
        >>> from pyro_gflows import VectorAction
        >>> spline = ElementwiseCircularSpline(VectorAction.signs(1), bins=4)
        >>> x, params = torch.ones(1), torch.linspace(-1, 1, spline.params_action.numel)
        >>> reflected = spline.params_action.act(1, params)
        >>> torch.allclose(spline(-x, reflected)[0], -spline(x, params)[0])
        True
    """

    periodic = True

    def __init__(self, action: LinearAction | TorusAction, *, bins: int = 8, knots: Knots | None = None) -> None:
        super().__init__(action)
        if not 2 <= bins <= MOST_BINS:
            raise ValueError(f"expected from 2 to {MOST_BINS} bins, got {bins}")
        self.fields = CircularFields(action, bins)
        self.bins, self.params_action = bins, self.fields.action
        self.knots = BoundedKnots() if knots is None else knots

    def _parameters_of(self, params: Tensor, mask: Tensor | None) -> tuple[Tensor, tuple[Tensor, Tensor], Tensor]:
        """The shift, the widths and heights, and the slopes; the last two along a last dimension."""
        *raw, phase = self.fields(params)
        if mask is not None:
            raw, phase = [part * mask[..., None] for part in raw], phase * mask
        sectors = self.fields.sectors
        widths, heights, slopes = circular_pieces(self.knots, raw[0], raw[1], raw[2], sectors=sectors)
        return phase - mean_displacement(heights, sectors), (widths, heights), slopes

    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, sizes, slopes = self._parameters_of(params, mask)
        image, log_slope = circular_spline(x, sizes, slopes)
        return image + shift, log_slope.sum(-1)

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        shift, sizes, slopes = self._parameters_of(params, mask)
        image, log_slope = circular_spline(y - shift, sizes, slopes, inverse=True)
        return image, log_slope.sum(-1)

    def computed_arguments(self) -> dict[str, Any]:
        """The knots: loaded weights bring their own."""
        return {"knots": self.knots}

    def extra_repr(self) -> str:
        return f"{self.fields.bins} bins on the circle"
