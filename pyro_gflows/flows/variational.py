"""VariationalFlow: a density that is an integral over a latent variable, and is trained by a lower bound."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import Action
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.serialization.registry import describe

__all__ = ["VariationalFlow"]


class VariationalFlow(nn.Module):
    r"""The base class of densities of x that a flow of more variables gives: its log-density has a lower bound.

    A flow is a density of a variable y that x does not determine, such as an image with noise or a padded event, and
    a conditional flow q(y | x) proposes values of y for an event x.

    .. math:: \log p(x) = \log E_{q(y \mid x)} \frac{p(y)}{q(y \mid x)}
        \ \ge\ E_{q(y \mid x)} [\log p(y) - \log q(y \mid x)]

    The ready-made ones are :class:`DequantizedFlow` and :class:`AugmentedFlow`. A subclass writes ``log_weights``,
    ``model`` and ``guide``, and sets ``flow`` to the density of y. ``fit`` trains it as it trains a flow.

    Attributes:
        flow: The flow of y.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction, augment
        >>> padded = VectorAction.plane("D4", copies=2)
        >>> flow = EquivariantFlow(InvariantNormal(padded), [GActNorm(padded)])
        >>> isinstance(augment(flow, padding=VectorAction.plane("D4")), VariationalFlow)
        True
    """

    flow: EquivariantFlow

    @property
    def action(self) -> Action:
        """How the group acts on the data."""
        return self.flow.action

    @property
    def context_action(self) -> Action | None:
        """How the group acts on a context; None, since such a density takes none."""
        return None

    def initialize(self, x: Tensor) -> None:
        """Set the flow's data-dependent parameters from events."""
        self.flow.initialize(x)

    def log_weights(self, x: Tensor, draws: int) -> Tensor:
        """The values log p(y) - log q(y | x) of independent draws y, of shape ``(draws, *batch_shape)``.

        Args:
            x: Events of shape ``batch_shape + action.event_shape``.
            draws: The number of draws for each event.
        """
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """The lower bound of log p(x) from one draw for each event, in nats."""
        return self.log_weights(x, 1)[0]

    def importance_bound(self, x: Tensor, *, draws: int, batch_size: int = 1024) -> Tensor:
        r"""The importance-weighted bound of log p(x) for every event, without gradients.

        It is :math:`\log \frac1K \sum_i p(y_i)/q(y_i \mid x)`; its mean approaches log p(x) as the number K of draws
        grows.

        Args:
            x: Events of shape ``(rows,) + action.event_shape``.
            draws: The number K of draws for each event.
            batch_size: How many draws are scored at a time.

        Raises:
            ValueError: ``draws`` is below 1.

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
        """The Pyro model.

        Args:
            x: Events of shape ``(rows,) + action.event_shape``.
        """
        raise NotImplementedError

    def guide(self, x: Tensor) -> None:
        """The Pyro guide.

        Args:
            x: Events of shape ``(rows,) + action.event_shape``.
        """
        raise NotImplementedError

    def config(self) -> dict[str, Any]:
        """The structure of both flows as JSON data, as ``EquivariantFlow.config``."""
        return dict(describe(self))
