"""Variational dequantization: noise that depends on the image, and turns with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pyro
import torch
from torch import Tensor, nn

from pyro_gflows.actions import Action, ImageAction
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.distribution import FlowDistribution
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.serialization.registry import describe, registered
from pyro_gflows.transforms import Compose, EquivariantTransform, GAffine, GNormalCdf, g_coupling

if TYPE_CHECKING:
    from pyro_gflows.datasets import GrayLevels

__all__ = ["DequantizedFlow", "VariationalDequantizer", "g_dequantizer"]


@registered
class VariationalDequantizer(nn.Module):
    r"""A density q(y | k) on the cell of every image k of levels, with :math:`q(g\,y \mid g\,k) = q(y \mid k)`.

    A pixel of level k holds the numbers :math:`y = a\,((k + u)/n - c)` with u in (0, 1), and u follows a conditional
    flow that reads the image (the middles of its cells).

    Args:
        noise: The flow of u over (0, 1), whose ``context_action`` moves the image.
        scaling: How levels become numbers (:class:`~pyro_gflows.datasets.GrayLevels`).

    Raises:
        TypeError: The noise is not an EquivariantFlow.
        ValueError: It takes no context, or its context is no image of its own shape.

    Source: Flow++, arXiv:1902.00275.
    """

    def __init__(self, noise: EquivariantFlow, scaling: GrayLevels) -> None:
        super().__init__()
        if not isinstance(noise, EquivariantFlow):
            raise TypeError(f"expected the flow of the noise, an EquivariantFlow, got {type(noise).__name__}")
        moves = noise.context_action
        if moves is None or moves.event_shape != noise.action.event_shape:
            raise ValueError(f"expected noise that takes an image of its own shape as context, got {moves}")
        self.noise, self.scaling = noise, scaling

    @property
    def action(self) -> Action:
        """How the group acts on images, their levels and the noise."""
        return self.noise.action

    def condition(self, levels: Tensor) -> FlowDistribution:
        """q(y | k) of each image, as a Pyro distribution of their batch shape.

        Args:
            levels: Levels 0 .. n-1 of any dtype, shape ``batch_shape + action.event_shape``.
        """
        corners = self.scaling.to_real(levels.to(next(self.noise.parameters())))
        step = self.scaling.step
        cells = _Cells(self.action, corners, step)
        noise = self.noise.transform.condition(corners + step / 2)
        return FlowDistribution(self.noise.base, Compose([noise, cells]))


class _Cells(EquivariantTransform):
    r""":math:`u \mapsto c + a\,u`, from the unit cube to the cells with corners c and side a.

    In the same composition as the flow of the noise, whose distribution remembers where a draw came from: to find u
    again between y and its corner would cost digits.
    """

    corners: Tensor

    def __init__(self, action: Action, corners: Tensor, side: float) -> None:
        super().__init__(action.without_symmetry())
        self.register_buffer("corners", corners, persistent=False)
        self._side = side

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        y = self.corners + self._side * x
        return y, self._ladj(y)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        x = (y - self.corners) / self._side
        return x, -self._ladj(x)

    def _ladj(self, event: Tensor) -> Tensor:
        batch = event.shape[: event.ndim - self.action_in.event_dim]
        return event.new_full(batch, self.action_in.numel * math.log(self._side))


def g_dequantizer(
    action: ImageAction, scaling: GrayLevels, *, blocks: int = 2, width: int = 8, depth: int = 1
) -> VariationalDequantizer:
    """The usual dequantizer: a mean and scale for every pixel, and couplings, all of which read the image.

    It starts as uniform noise, exactly: normal noise goes through the identity and its own distribution function.

    Args:
        action: How the group acts on images; any one that can be split, or ``blocks=0``.
        scaling: How levels become numbers.
        blocks: Coupling steps; 0 makes the noise of the pixels independent, given the image.
        width: Hidden fields of the networks.
        depth: Their hidden layers.

    Raises:
        ValueError: Blocks below 0, or an action whose events cannot be split with blocks above 0.

    Example:
        >>> from pyro_gflows.datasets import GrayLevels
        >>> dequantizer = g_dequantizer(ImageAction("D4", size=4), GrayLevels(17))
        >>> levels = torch.randint(17, (5, 1, 4, 4))
        >>> y = dequantizer.condition(levels).sample()
        >>> y.shape, bool((GrayLevels(17).quantize(y) == levels).all())
        (torch.Size([5, 1, 4, 4]), True)
    """
    if blocks < 0:
        raise ValueError(f"expected blocks >= 0, got {blocks}")
    size: dict[str, Any] = {"context_action": action, "width": width, "depth": depth}
    try:
        couplings = [g_coupling(action, **size) for _ in range(blocks)]
    except ValueError as error:
        raise ValueError(f"{error}; without couplings, blocks=0, the noise of the pixels is independent") from error
    layers = [*couplings, GAffine(action, **size), GNormalCdf(action, alpha=0.0)]
    return VariationalDequantizer(EquivariantFlow(InvariantNormal(action), layers), scaling)


@renamed_arguments(dequantiser="dequantizer")
@registered
class DequantizedFlow(nn.Module):
    r"""A flow of images as a model of their levels: with p the flow and k the levels of an image,

    .. math:: \log P(k) = \log \int_{\text{cell of } k} p(y)\,dy \ \ge\ E_{q(y \mid k)} [\log p(y) - \log q(y \mid k)]

    in nats an image, so that bits per dimension are ``-elbo / (d log 2)``. Its arguments are dequantized images, as the
    data sets give them; of these only the levels count. ``model`` and ``guide`` are a Pyro model and guide.

    Args:
        flow: p.
        dequantizer: q.

    Raises:
        ValueError: The two are of images of different shapes.

    Example:
        >>> from pyro_gflows import g_coupling_image_flow
        >>> from pyro_gflows.datasets import GrayLevels
        >>> action, scaling = ImageAction("C4", size=4), GrayLevels(17)
        >>> flow = g_coupling_image_flow(action, scales=1, blocks=1, width=2)
        >>> both = DequantizedFlow(flow, g_dequantizer(action, scaling))
        >>> both(scaling.dequantize(torch.randint(17, (3, 1, 4, 4)))).shape
        torch.Size([3])
    """

    def __init__(self, flow: EquivariantFlow, dequantizer: VariationalDequantizer) -> None:
        super().__init__()
        if flow.action.event_shape != dequantizer.action.event_shape:
            raise ValueError(
                f"expected a dequantizer of the flow's images, {tuple(flow.action.event_shape)}, got one of "
                f"{dequantizer.action}"
            )
        self.flow, self.dequantizer = flow, dequantizer

    @property
    def action(self) -> Action:
        """How the group acts on the data."""
        return self.flow.action

    def initialize(self, x: Tensor) -> None:
        """Set the flow's data-dependent parameters from images."""
        self.flow.initialize(x)

    def log_weights(self, x: Tensor, draws: int) -> Tensor:
        """log p(y) - log q(y | k) of independent draws y, shape ``(draws, *batch_shape)``."""
        self.action.check_event(x)
        cells = self.dequantizer.condition(self.dequantizer.scaling.quantize(x))
        y = cells.rsample((draws,))
        log_q = cells.log_prob(y)  # first: it is still remembered
        return self.flow(y) - log_q

    def forward(self, x: Tensor) -> Tensor:
        """The lower bound of log P(k) by one draw an image, in nats."""
        return self.log_weights(x, 1)[0]

    def importance_bound(self, x: Tensor, *, draws: int, batch_size: int = 1024) -> Tensor:
        r"""The importance-weighted bound :math:`\log \frac1K \sum_i p(y_i)/q(y_i \mid k)` of every image, without
        gradients; its mean rises to log P(k) with the draws.

        Args:
            x: Images, shape ``(rows,) + action.event_shape``.
            draws: K.
            batch_size: Draws scored at a time.

        Raises:
            ValueError: Fewer than 1 draw.

        Source: Importance Weighted Autoencoders, arXiv:1509.00519.
        """
        if draws < 1:
            raise ValueError(f"expected draws >= 1, got {draws}")
        at_once = min(draws, batch_size)
        counts = [at_once] * (draws // at_once) + ([draws % at_once] if draws % at_once else [])
        bounds = []
        with torch.no_grad():
            for part in x.split(max(1, batch_size // at_once)):
                weights = torch.cat([self.log_weights(part, count).double() for count in counts])
                bounds.append(torch.logsumexp(weights, 0) - math.log(draws))
        return torch.cat(bounds)

    def model(self, x: Tensor) -> None:
        """y ~ p; its level is k without doubt, which adds log 1."""
        pyro.module("dequantized", self)
        with pyro.plate("images", len(x)):
            pyro.sample("y", self.flow.dist)

    def guide(self, x: Tensor) -> None:
        """y ~ q(y | k)."""
        pyro.module("dequantized", self)
        with pyro.plate("images", len(x)):
            pyro.sample("y", self.dequantizer.condition(self.dequantizer.scaling.quantize(x)))

    def config(self) -> dict[str, Any]:
        """Plain JSON data of both, as ``EquivariantFlow.config``."""
        return dict(describe(self))
