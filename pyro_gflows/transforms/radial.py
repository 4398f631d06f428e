"""GRadial: a monotone spline of the radius of each part of a vector."""

from __future__ import annotations

import math
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn import BoundedKnots, FreeKnots, Knots, conditioner, knots_of_file
from pyro_gflows.nn.isotypic import IsotypicParts
from pyro_gflows.nn.radius_splines import radius_knots, stretched
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.conditional import ConditionalTransform

__all__ = ["GRadial", "g_radial"]

_MOST_BINS = 999


@registered
class GRadial(ConditionalTransform):
    r"""A map that stretches each part of a vector along its radius (the norm of the part), by a monotone spline.

    A part (isotypic component) holds everything that the group transforms by one irreducible representation: the whole
    vector for a single vector of the plane, or all scalars, or all vectors, of an event that has both. The layer works
    for every group, continuous ones included, and is fast in both directions. It never mixes directions, so that by
    itself it models the radii only.

    .. math:: y_i = \frac{x_i}{r_i} R_i(r_i), \qquad
        \log|\det J| = \sum_i \Big(\log R_i'(r_i) + (d_i - 1) \log\frac{R_i(r_i)}{r_i}\Big)

    Here x_i is part i of the vector, of d_i coordinates and radius r_i = \|x_i\|, and R_i is a rational-quadratic
    spline. Events keep their shape. The map is bijective because R_i is increasing, with R_i(0) = 0 and a linear tail;
    both directions have a closed form. It is equivariant because it commutes with every orthogonal map of each part.
    ``knots`` bounds how steep and how flat R_i may be, so that in single precision map and inverse undo each other to
    1e-3 for any weights.

    Args:
        action: How the group acts on vectors.
        bins: The number of pieces of each spline.
        limit: The radius at which the linear tail begins.
        context_action: How the group acts on a context that changes the splines; None: there is none.
        width: Hidden fields of the network that reads the context.
        knots: How the weights become widths, heights and slopes, and within which bounds; by default
            ``BoundedKnots(secant=64.0)``. Files of versions without bounds load with
            :class:`~pyro_gflows.nn.FreeKnots`.

    Raises:
        TypeError: ``action`` is not a LinearAction.
        ValueError: Events are not vectors, the context does not go with them, or bins or limit is not positive.

    Source: Neural Spline Flows, arXiv:1906.04032 (the monotone spline).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> layer = GRadial(VectorAction.plane("O(2)"))
        >>> bool(torch.allclose(layer(torch.tensor([1.0, 2.0])), torch.tensor([1.0, 2.0]), atol=1e-5))
        True
    """

    described_before: ClassVar[dict[str, Any]] = {"knots": FreeKnots}

    def __init__(
        self,
        action: LinearAction,
        *,
        bins: int = 32,
        limit: float = 4.0,
        context_action: LinearAction | None = None,
        width: int = 16,
        knots: Knots | None = None,
    ) -> None:
        super().__init__(action, context_action=context_action)
        require_linear(action)
        if action.event_dim != 1:
            raise ValueError(f"GRadial works on vectors, got {action}")
        if not 1 <= bins <= _MOST_BINS or not 0 < limit < math.inf:
            raise ValueError(f"expected 1 <= bins < {_MOST_BINS + 1} and a positive limit, got {bins} and {limit}")
        self.bins, self.limit = bins, limit
        self.knots = BoundedKnots(secant=64.0) if knots is None else knots
        self.parts = IsotypicParts(action)
        count = len(self.parts)
        self.widths = nn.Parameter(torch.zeros(count, bins))
        self.heights = nn.Parameter(torch.zeros(count, bins))
        self.slopes = nn.Parameter(torch.zeros(count, bins + 1))
        self.log_height = nn.Parameter(torch.zeros(count))
        self.network = None
        if context_action is not None:
            parameters = action.trivial_fields(count * (3 * bins + 2))
            self.network = conditioner(self.inputs_action(), parameters, width=width, depth=1)

    def _knots(self, context: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Positions, values and slopes at the knots, each ``(..., parts, bins + 1)``; the identity at the start."""
        raw = torch.cat([self.widths, self.heights, self.slopes, self.log_height[:, None]], -1)
        if self.network is not None:
            raw = raw + self.network(self.inputs([], context)).unflatten(-1, raw.shape)
        return radius_knots(raw, self.knots, self.limit)

    def _through(self, x: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        parts = self.parts.split(x)
        knots = self._knots(context)
        images, total = [], torch.zeros(x.shape[:-1], dtype=x.dtype, device=x.device)
        for index, part in enumerate(parts):
            at_knots = tuple(each[..., index, :] for each in knots)
            image, ladj = stretched(part, at_knots, inverse=inverse)
            images.append(image)
            total = total + ladj
        return self.parts.merge(images), total

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._through(x, context, inverse=True)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._through(y, context, inverse=False)

    def computed_arguments(self) -> dict[str, Any]:
        """The knots: loaded weights bring their own."""
        return {"knots": self.knots}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any) -> None:
        if f"{prefix}widths" in state_dict:
            self.knots = knots_of_file(self.knots, state_dict, f"{prefix}knots.")
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, {self.bins} bins on [0, {self.limit:g}]"


def g_radial(
    action: LinearAction, *, bins: int = 32, limit: float = 4.0, context_action: LinearAction | None = None
) -> GRadial:
    """A radial spline layer, a :class:`GRadial` with the default knots.

    Args:
        action: How the group acts on vectors.
        bins: The number of pieces of each spline.
        limit: The radius at which the linear tail begins.
        context_action: How the group acts on a context that changes the splines; None: there is none.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> g_radial(VectorAction.space("SO(3)"), bins=8)(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """
    return GRadial(action, bins=bins, limit=limit, context_action=context_action)
