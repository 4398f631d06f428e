"""Residual branches whose layers also pass on their input, with a certified Lipschitz constant."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.actions import ImageAction, LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn.activations import Activation, Pointwise
from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.nn.jacobian import sandwich_jacobian
from pyro_gflows.nn.kernel import LipschitzLayer, kernels_once
from pyro_gflows.nn.lipschitz_layers import lipschitz_layer
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.networks import activation_for
from pyro_gflows.serialization.registry import registered

__all__ = ["LipschitzDenseNetwork"]


@registered
class LipschitzDenseNetwork(Contraction):
    r"""An equivariant branch of concatenating layers, with Lipschitz constant at most ``bound`` for all weights.

    Each layer adds new fields to those that it reads (a DenseNet), so that later layers see all earlier ones.

    .. math:: h_0 = x, \quad h_{i+1} = (\cos\eta_i\; h_i,\; \sin\eta_i\; \varphi(K_i h_i)), \quad f(x) = K h_n

    Each :math:`K_i` has norm at most 1 and each :math:`\varphi` is 1-Lipschitz. So each concatenation is 1-Lipschitz
    for all values of the learnable :math:`\eta_i`, and the last map K has norm at most the bound.

    Args:
        action: How the group acts on the input and the output.
        width: The number of hidden fields that each layer adds.
        depth: The number of concatenating layers.
        bound: The Lipschitz bound of the branch, in (0, 1).
        activation: A pointwise activation of EquivariantNetwork, such as "splines" or "clipswish"; the default is that
            of LipschitzNetwork.

    Raises:
        ValueError: If the bound is outside (0, 1), the width or the depth is below 1, or the activation is unknown.

    Source: Invertible DenseNets with Concatenated LipSwish, arXiv:2102.02694.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> branch = LipschitzDenseNetwork(ImageAction("D4", size=4), width=2, depth=2)
        >>> branch(torch.zeros(5, 1, 4, 4)).shape
        torch.Size([5, 1, 4, 4])
    """

    def __init__(
        self,
        action: LinearAction,
        *,
        width: int = 8,
        depth: int = 1,
        bound: float = 0.98,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        require_linear(action)
        if not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), got {bound}")
        if width < 1 or depth < 1:
            raise ValueError(f"expected width >= 1 and depth >= 1, got {width} and {depth}")
        self.action, self.bound = action, bound
        hidden = action.regular_fields(width) if action.is_enumerable else action.copies(width)
        self.layers, self.activations, now = nn.ModuleList(), nn.ModuleList(), action
        self.hidden_scales: list[float] = []
        for _ in range(depth):
            self.layers.append(lipschitz_layer(now, hidden, bound=1.0))
            made = activation_for(hidden, activation, ("splines", "soft_threshold"))
            self.activations.append(made)
            # a map of norm 1 from few features to many makes each of the many small: by the root of the ratio
            self.hidden_scales.append(min(1.0, (sum(now.field_sizes) / sum(hidden.field_sizes)) ** 0.5))
            now = now.direct_sum(*[hidden] * made.fan_out)
        self.layers.append(lipschitz_layer(now, action, bound=bound))
        self.angle = nn.Parameter(torch.full((depth,), math.pi / 4))

    def forward(self, x: Tensor) -> Tensor:
        dim = -self.action.event_dim
        for i, activation in enumerate(self.activations):
            made = activation(self.layers[i](x) / self.hidden_scales[i])
            x = torch.cat([self.angle[i].cos() * x, (self.hidden_scales[i] * self.angle[i].sin()) * made], dim)
        out: Tensor = self.layers[-1](x)
        return out

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights."""
        *bounds, last = [layer.lipschitz_bound() for layer in each(self.layers, LipschitzLayer)]
        gain = torch.ones(())
        for angle, bound, activation in zip(self.angle, bounds, each(self.activations, Activation), strict=True):
            made = bound * activation.lipschitz
            gain = gain * (angle.cos().square() + (angle.sin() * made).square()).sqrt()
        return (gain * last).detach()

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x) and the Jacobian on the flattened event; a closed form for one layer on images."""
        shallow = len(self.activations) == 1 and isinstance(self.activations[0], Pointwise)
        if not shallow or not isinstance(self.action, ImageAction):
            return super().call_and_jacobian(x)
        with kernels_once(self):
            return self._closed_form(x, periodic=self.action.padding == "circular")

    def _closed_form(self, x: Tensor, *, periodic: bool) -> tuple[Tensor, Tensor]:
        first, last = each(self.layers, LipschitzLayer)
        (activation,), (scale,) = each(self.activations, Pointwise), self.hidden_scales
        passed, made = self.angle[0].cos(), self.angle[0].sin()
        kernel, wide = first.kernel(), last.kernel()
        channels = x.shape[-3]
        value, inner, slope, outer = activation.sandwich(first(x) / scale, kernel, wide[:, channels:])
        hidden = torch.cat([passed * x, (scale * made) * value], -3)
        # the features that are passed on went through a kernel that is 1 at its center
        center = torch.eye(channels, dtype=kernel.dtype, device=kernel.device)
        identity = functional.pad(center[:, :, None, None], (kernel.shape[-1] // 2,) * 4)
        slopes = torch.cat([passed.expand_as(x), made * slope], -3)
        wide, narrow = torch.cat([wide[:, :channels], outer], 1), torch.cat([identity, inner])
        jacobian = sandwich_jacobian(wide, slopes, narrow, periodic=periodic)
        return last(hidden), jacobian

    def extra_repr(self) -> str:
        return f"Lipschitz bound {self.bound:g}"
