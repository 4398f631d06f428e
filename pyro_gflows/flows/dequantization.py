"""Variational dequantization: learned noise between the gray levels, which depends on the image equivariantly."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pyro
from torch import Tensor, nn

from pyro_gflows.actions import Action, ImageAction
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.distribution import FlowDistribution
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.variational import VariationalFlow
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms import Compose, EquivariantTransform, GAffine, GNormalCdf, g_coupling

if TYPE_CHECKING:
    from pyro_gflows.datasets import GrayLevels

__all__ = ["DequantizedFlow", "VariationalDequantizer", "g_dequantizer"]


@registered
class VariationalDequantizer(nn.Module):
    r"""Learned noise that makes continuous images y from images k of gray levels: a density q(y | k).

    A density of continuous images can give a likelihood of images of levels if noise fills the cell of each level.
    Noise with a density that is learned gives a tighter bound than uniform noise. A pixel of level k becomes :math:`y =
    a\,((k + u)/n - c)` with u in (0, 1), and u follows a conditional flow that reads the image (the middles of its
    cells). The noise is equivariant, :math:`q(g\,y \mid g\,k) = q(y \mid k)`.

    Args:
        noise: The flow of u over (0, 1), with the action on images as its ``context_action``.
        scaling: How levels become real values (:class:`~pyro_gflows.datasets.GrayLevels`).

    Raises:
        TypeError: ``noise`` is not an EquivariantFlow.
        ValueError: ``noise`` takes no context, or its context is not an image of its own shape.

    Source: Flow++, arXiv:1902.00275.

    Example:
        >>> import torch
        >>> from pyro_gflows.datasets import GrayLevels
        >>> action = ImageAction("D4", size=4)
        >>> layers = [GAffine(action, context_action=action, width=2), GNormalCdf(action, alpha=0.0)]
        >>> noise = EquivariantFlow(InvariantNormal(action), layers)
        >>> dequantizer = VariationalDequantizer(noise, GrayLevels(17))
        >>> dequantizer.condition(torch.zeros(5, 1, 4, 4)).sample().shape
        torch.Size([5, 1, 4, 4])
    """

    def __init__(self, noise: EquivariantFlow, scaling: GrayLevels) -> None:
        super().__init__()
        if not isinstance(noise, EquivariantFlow):
            raise TypeError(f"expected the flow of the noise, an EquivariantFlow, got {type(noise).__name__}")
        context = noise.context_action
        if context is None or context.event_shape != noise.action.event_shape:
            raise ValueError(f"expected noise that takes an image of its own shape as context, got {context}")
        self.noise, self.scaling = noise, scaling

    @property
    def action(self) -> Action:
        """How the group acts on images, their levels and the noise."""
        return self.noise.action

    def condition(self, levels: Tensor) -> FlowDistribution:
        """The density q(y | k) for a batch of images, as a Pyro distribution of their batch shape.

        Args:
            levels: Levels 0 .. n-1 of any dtype, of shape ``batch_shape + action.event_shape``.
        """
        corners = self.scaling.to_real(levels.to(next(self.noise.parameters())))
        step = self.scaling.step
        cells = _Cells(self.action, corners, step)
        noise = self.noise.transform.condition(corners + step / 2)
        return FlowDistribution(self.noise.base, Compose([noise, cells]))


class _Cells(EquivariantTransform):
    r"""The map :math:`u \mapsto c + a\,u` from the unit cube to the cells with corners c and side a.

    It is a layer after the flow of the noise, so that the distribution remembers from which u a draw came: to compute u
    again from y and its corner would cost digits.
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
    """The usual dequantizer: couplings, then a mean and a scale for every pixel, all of which read the image.

    Its noise is exactly uniform at the start: normal noise goes through layers that start as the identity, and then
    through the normal distribution function.

    Args:
        action: How the group acts on images; with ``blocks`` above 0, an action whose events can be split.
        scaling: How levels become real values.
        blocks: Coupling steps; with 0 the noise of the pixels is independent, given the image.
        width: Hidden fields of the networks.
        depth: Hidden layers of the networks.

    Raises:
        ValueError: ``blocks`` is below 0, or it is above 0 and the events cannot be split.

    Example:
        >>> import torch
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
class DequantizedFlow(VariationalFlow):
    r"""A flow of continuous images, together with a dequantizer, as a model of images of gray levels.

    With p the density of the flow, q the dequantizer and k the levels of an image, ``forward`` gives a bound in nats:

    .. math:: \log P(k) = \log \int_{\text{cell of } k} p(y)\,dy \ \ge\ E_{q(y \mid k)} [\log p(y) - \log q(y \mid k)]

    Bits per dimension are ``-elbo / (d log 2)``, where d is the number of pixels times channels. The arguments of its
    methods are dequantized images, as the data sets give them, of which only the levels count. ``model`` and ``guide``
    are a Pyro model and guide.

    Args:
        flow: The flow, with density p.
        dequantizer: The noise, with density q.

    Raises:
        ValueError: Flow and dequantizer are for images of different shapes.

    Example:
        >>> import torch
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

    def log_weights(self, x: Tensor, draws: int) -> Tensor:
        """The values log p(y) - log q(y | k) of independent draws y, of shape ``(draws, *batch_shape)``."""
        self.action.check_event(x)
        cells = self.dequantizer.condition(self.dequantizer.scaling.quantize(x))
        y = cells.rsample((draws,))
        log_q = cells.log_prob(y)  # before anything else, while the distribution remembers the draw
        return self.flow(y) - log_q

    def model(self, x: Tensor) -> None:
        """The Pyro model y ~ p. The levels of y are k with probability 1, so that no term is added for them."""
        pyro.module("dequantized", self)
        with pyro.plate("images", len(x)):
            pyro.sample("y", self.flow.dist)

    def guide(self, x: Tensor) -> None:
        """The Pyro guide y ~ q(y | k)."""
        pyro.module("dequantized", self)
        with pyro.plate("images", len(x)):
            pyro.sample("y", self.dequantizer.condition(self.dequantizer.scaling.quantize(x)))
