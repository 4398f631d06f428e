"""ElementwiseSpline: a monotone spline of every coordinate, with knots from a conditioner."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from pyro_gflows.actions import LinearAction
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.nn import BoundedKnots, FreeKnots, Knots, knots_of_file
from pyro_gflows.numerics import monotone_spline
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.transformers import Transformer

__all__ = ["MOST_BINS", "ElementwiseSpline"]

MOST_BINS = 998


@renamed_arguments(cap="max_log_scale")
@registered
class ElementwiseSpline(Transformer):
    r"""A transformer with a monotone spline of every coordinate, for groups that permute coordinates up to signs.

    .. math:: y_i = e^{s_i} (S_i(x_i) + t_i), \qquad \log|\det J| = \sum_i s_i + \log S_i'(x_i)

    It models several modes along a coordinate, which an affine map cannot. S_i is a rational-quadratic spline with as
    many knots on the left of 0 as on the right, and goes on in a straight line beyond the last knots; s_i is a
    log-scale and t_i a shift. Each parameter of the knots (widths, heights and slopes) is e + o on the right and e - o
    on the left: where a group element changes the sign of coordinate i, it leaves e unchanged and changes the sign of
    o. So a permutation permutes the splines, and a sign flip reflects the knots, :math:`S(-x) \to -S(x)`; every spline
    that commutes with the group has this form. Both directions have a closed form, and zero parameters give the
    identity. ``knots`` bounds how steep and how flat S_i may be, so that in single precision map and inverse undo each
    other to 1e-3 for any parameters, with shifts \|t\| up to 100.

    Args:
        action: How the group acts on the part.
        bins: The number of pieces of each spline, which is even.
        limit: The knots lie in [-limit, limit].
        max_log_scale: Smooth bound of \|s\|.
        knots: How the parameters become widths, heights and slopes, and within which bounds; by default
            :class:`~pyro_gflows.nn.BoundedKnots`. Files of versions without bounds load with
            :class:`~pyro_gflows.nn.FreeKnots`, with which :math:`y_i = e^{s_i} S_i(x_i) + t_i`.

    Raises:
        ValueError: The group does not permute coordinates up to signs; bins are not even, or limit is not positive.

    Source: Neural Spline Flows, arXiv:1906.04032.

    Example:
        >>> from pyro_gflows import VectorAction, g_coupling
        >>> spline = ElementwiseSpline(VectorAction.signs(1), bins=4)
        >>> spline.params_action
        VectorAction(C2 on R^15: 8 x |sign 0| + 7 x sign 0)
        >>> g_coupling(VectorAction.signs(2), transformer=ElementwiseSpline)(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    described_before: ClassVar[dict[str, Any]] = {"knots": FreeKnots}

    def __init__(
        self,
        action: LinearAction,
        *,
        bins: int = 8,
        limit: float = 4.0,
        max_log_scale: float = 3.0,
        knots: Knots | None = None,
    ) -> None:
        super().__init__(action, max_log_scale=max_log_scale)
        if not action.is_signed_permutation:
            raise ValueError(f"an element-wise spline commutes with (signed) permutations only, got {action}")
        if bins < 2 or bins % 2 or bins > MOST_BINS or not 0 < limit < math.inf:
            raise ValueError(
                f"expected an even number of bins from 2 to {MOST_BINS} and a positive limit, got {bins} and {limit}"
            )
        self.bins, self.limit = bins, limit
        self.knots = BoundedKnots() if knots is None else knots
        # of the log-scale or shift; widths and heights on one side of 0; slopes there (that at 0 has no odd part)
        self.even, self.odd = [1, bins // 2, bins // 2, bins // 2 + 1], [1, bins // 2, bins // 2, bins // 2]
        self.params_action = action.absolute().copies(sum(self.even)).direct_sum(action.copies(sum(self.odd)))

    def _parameters_of(self, params: Tensor, mask: Tensor | None) -> tuple[Tensor, ...]:
        """Log-scale, shift, and the raw widths, heights and slopes of the knots along a last dimension."""
        event_dim, fields = self.action.event_dim, sum(self.action.field_sizes)
        params = params.unflatten(-event_dim, (-1, fields))
        if mask is not None:
            params = params * mask.unsqueeze(-event_dim - 1)
        params = params.movedim(-event_dim - 1, -1)
        scale, *even = params[..., : sum(self.even)].split(self.even, -1)
        shift, *odd = params[..., sum(self.even) :].split(self.odd, -1)
        odd[-1] = functional.pad(odd[-1], (1, 0))
        right = [e + o for e, o in zip(even, odd, strict=True)]
        left = [(e - o).flip(-1) for e, o in zip(even, odd, strict=True)]
        widths, heights = (torch.cat(pair, -1) for pair in zip(left[:2], right[:2], strict=True))
        slopes = torch.cat([left[2], right[2][..., 1:]], -1)
        log_scale, shift = self._bounded(scale.squeeze(-1)), shift.squeeze(-1)
        return log_scale, shift * log_scale.exp() if self.knots.scales_shift else shift, widths, heights, slopes

    def _spline(self, x: Tensor, widths: Tensor, heights: Tensor, slopes: Tensor, *, inverse: bool) -> list[Tensor]:
        shares = self.knots.widths(widths)
        sizes = [2 * self.limit * shares, 2 * self.limit * self.knots.heights(heights, shares)]
        slopes = self.knots.slopes(slopes, sizes[1] / sizes[0])
        return list(monotone_spline(x, -self.limit, (sizes[0], sizes[1]), slopes, inverse=inverse))

    def _ladj(self, log_slopes: Tensor) -> Tensor:
        return log_slopes.flatten(log_slopes.ndim - self.action.event_dim).sum(-1)

    def forward(self, x: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift, *knots = self._parameters_of(params, mask)
        image, log_slope = self._spline(x, *knots, inverse=False)
        return image * log_scale.exp() + shift, self._ladj(log_slope + log_scale)

    def inverse(self, y: Tensor, params: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        log_scale, shift, *knots = self._parameters_of(params, mask)
        image, log_slope = self._spline((y - shift) * (-log_scale).exp(), *knots, inverse=True)
        return image, self._ladj(log_slope - log_scale)

    def computed_arguments(self) -> dict[str, Any]:
        """The knots: loaded weights bring their own."""
        return {"knots": self.knots}

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        # a transformer has no other weights, so an older file shows itself only by the missing bounds
        self.knots = knots_of_file(self.knots, state_dict, f"{prefix}knots.")
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        return f"{self.bins} bins on [-{self.limit:g}, {self.limit:g}], log-scales within {self.max_log_scale:g}"
