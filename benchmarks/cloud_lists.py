"""Autoregressive flows of a list of points of the plane: what a set is compared with when it is written as a list."""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows import EquivariantFlow
from pyro_gflows.nn import BoundedKnots
from pyro_gflows.transforms import ElementwiseSpline, EquivariantTransform

__all__ = ["ListAutoregressive", "Made", "list_flow"]

SPLINE = partial(ElementwiseSpline, knots=BoundedKnots(secant=1000.0))
"""The element map of all models: pieces may differ in density by a factor of 1,000, as ink and paper do."""
GAP_LOG_MEAN, GAP_LOG_SCALE = -3.2, 1.2  # of the logarithms of gaps between neighbors, in units of 6 pixels


class MaskedLinear(nn.Linear):
    """A linear map in which an output reads the inputs whose label is at most its own.

    Args:
        inputs: The labels of the inputs.
        outputs: The labels of the outputs.
    """

    mask: Tensor

    def __init__(self, inputs: Tensor, outputs: Tensor) -> None:
        super().__init__(len(inputs), len(outputs))
        self.register_buffer("mask", (outputs[:, None] >= inputs[None, :]).float(), persistent=False)
        with torch.no_grad():  # as large an output where few inputs are read
            self.weight.mul_((len(inputs) / self.mask.sum(1, keepdim=True).clamp(min=1)).sqrt())

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.linear(x, self.weight * self.mask, self.bias)


class Made(nn.Module):
    """A masked network from D numbers to P parameters of each, those of number j from the numbers before j.

    Args:
        count: The number D.
        params: The number P.
        width: The number of hidden units.
    """

    def __init__(self, count: int, params: int, *, width: int) -> None:
        super().__init__()
        places = torch.arange(count)
        hidden = places[:-1].repeat(-(-width // (count - 1)))[:width]
        self.first, self.second = MaskedLinear(places, hidden), MaskedLinear(hidden, hidden)
        self.last = MaskedLinear(hidden, (places - 1).repeat(params))
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def weights(self) -> int:
        """The number of weights that are not masked, and of biases."""
        return sum(int(layer.mask.sum()) + len(layer.bias) for layer in (self.first, self.second, self.last))

    def forward(self, x: Tensor) -> Tensor:
        hidden = nn.functional.silu(self.first(x))
        hidden = hidden + nn.functional.silu(self.second(hidden))
        found: Tensor = self.last(hidden)
        return found


class ListAutoregressive(EquivariantTransform):
    r"""A map of a list (y_1, x_1, y_2, x_2, ...), one coordinate after the other, by splines that read those before.

    Where the list is sorted by y, the splines map the logarithms of the gaps :math:`y_{j+1} - y_j > 0`, so that the
    density is one on sorted lists, with no mass elsewhere. Data to base is one pass, base to data one pass for each
    coordinate. It has no symmetry.

    Args:
        points: The number of points.
        width: Hidden units of the network.
        bins: Pieces of each spline.
        is_sorted: Whether lists are sorted by y.
    """

    def __init__(self, points: int, *, width: int, bins: int, is_sorted: bool) -> None:
        super().__init__(VectorAction.trivial("C1", copies=2 * points))
        self.transformer = SPLINE(self.action_in, bins=bins, limit=4.0)
        self.network = Made(2 * points, self.transformer.params_action.numel // (2 * points), width=width)
        self.is_sorted = is_sorted

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        coordinates, ladj = self._to_gaps(y)
        source, more = self.transformer.inverse(coordinates, self.network(y))
        return source, ladj + more

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = torch.zeros_like(x)
        for place in range(x.shape[-1]):
            coordinates = self.transformer(x, self.network(y))[0]
            y = torch.cat([y[..., :place], self._next(coordinates, y, place), y[..., place + 1 :]], -1)
        ladj = self.inv_call_and_ladj(y)[1]
        return y, -ladj

    def _to_gaps(self, y: Tensor) -> tuple[Tensor, Tensor]:
        if not self.is_sorted:
            return y, y.new_zeros(y.shape[:-1])
        heights, others = y[..., ::2], y[..., 1::2]
        logs = heights.diff(dim=-1).clamp(min=1e-7).log()  # equal to 6e-7 pixels by rounding, not by the data
        steps = torch.cat([heights[..., :1], (logs - GAP_LOG_MEAN) / GAP_LOG_SCALE], -1)
        ladj = -logs.sum(-1) - logs.shape[-1] * math.log(GAP_LOG_SCALE)
        return torch.stack([steps, others], -1).flatten(-2), ladj

    def _next(self, coordinates: Tensor, y: Tensor, place: int) -> Tensor:
        """The coordinate at that place of the list, once those before it are known."""
        own = coordinates[..., place : place + 1]
        if not self.is_sorted or place % 2 or place == 0:
            return own
        return y[..., place - 2 : place - 1] + (own * GAP_LOG_SCALE + GAP_LOG_MEAN).exp()


def list_flow(points: int, *, width: int, bins: int = 8, is_sorted: bool) -> EquivariantFlow:
    """A flow with one autoregressive layer.

    Args:
        points: The number of points.
        width: Hidden units of the network.
        bins: Pieces of each spline.
        is_sorted: Whether lists are sorted by y.
    """
    layer = ListAutoregressive(points, width=width, bins=bins, is_sorted=is_sorted)
    return EquivariantFlow(InvariantNormal(layer.action_in), [layer])
