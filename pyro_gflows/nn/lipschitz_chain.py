"""LipschitzChain: an equivariant network between two actions whose Lipschitz constant is bounded for all weights."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.activations import Activation, Pointwise
from pyro_gflows.nn.kernel import LipschitzLayer, each_kernel_once
from pyro_gflows.nn.lipschitz_layers import lipschitz_layer
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.networks import EquivariantNetwork

__all__ = ["LipschitzChain"]


class LipschitzChain(EquivariantNetwork):
    """Equivariant linear layers with certified norms and 1-Lipschitz activations in turn.

    Each linear layer has norm at most :math:`c^{1/(depth + 1)}` by construction, so that the Lipschitz constant of the
    network is at most c.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output.
        width: The number of hidden fields.
        depth: The number of hidden layers.
        bound: The constant c, in (0, 1).
        activation: The name of the activation; the default is learnable splines where the group permutes the hidden
            fields, else the soft threshold.
        bias: "channels", or "pixels" on images, as for EquivariantNetwork.

    Attributes:
        hidden_scale: The typical size of hidden features. Each activation acts on features divided by this size, and
            its output is multiplied by it, so that the activation bends where its input is.

    Raises:
        ValueError: If the bound is outside (0, 1), or the activation is unknown.
    """

    default_activations = ("splines", "soft_threshold")

    def __init__(
        self,
        action_in: LinearAction,
        action_out: LinearAction,
        *,
        width: int,
        depth: int,
        bound: float,
        activation: str | None = None,
        bias: Literal["channels", "pixels"] = "channels",
    ) -> None:
        if not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), got {bound}")
        self._layer_bound = bound ** (1 / (depth + 1))
        super().__init__(action_in, action_out, width=width, depth=depth, activation=activation, bias=bias)
        # a map of norm 1 from few features to many makes each of the many small: by the root of the ratio
        ratio = sum(action_in.field_sizes) / sum(self.hidden(action_in, width).field_sizes)
        self.hidden_scale = min(1.0, ratio**0.5)

    def run(self, x: Tensor) -> Tensor:
        layers = iter(self.layers)
        for activation in self.activations:
            x = self.hidden_scale * activation(next(layers)(x) / self.hidden_scale)
        out: Tensor = next(layers)(x)
        return out

    forward = run

    def hidden(self, action: LinearAction, width: int) -> LinearAction:
        # norm activations do not mix different irreps: irreps that the event does not contain would have no effect
        return action.regular_fields(width) if action.is_enumerable else action.copies(width)

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        return lipschitz_layer(action_in, action_out, bound=self._layer_bound, bias=self.bias_of(action_out))

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights."""
        bounds = [layer.lipschitz_bound() for layer in each(self.layers, LipschitzLayer)]
        constants = [activation.lipschitz for activation in each(self.activations, Activation)]
        return torch.stack(bounds).prod() * math.prod(constants)

    def _pointwise(self) -> Pointwise | None:
        """The activation of a network with one pointwise activation, whose Jacobian has a closed form; else None."""
        activation = self.activations[0] if len(self.activations) == 1 else None
        return activation if isinstance(activation, Pointwise) else None

    def _factors(self, x: Tensor, activation: Pointwise) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The value f(x), and three factors of its Jacobian: the inner kernel, the slopes, the outer kernel.

        Args:
            x: The input.
            activation: The one activation.
        """
        first, last = each(self.layers, LipschitzLayer)
        with each_kernel_once((first, last)):
            kernels = first.kernel(), last.kernel()
            value, inner, slope, outer = activation.sandwich(first(x) / self.hidden_scale, *kernels)
            return last(self.hidden_scale * value), inner, slope, outer
