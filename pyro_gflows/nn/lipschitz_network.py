"""Residual branches with a certified Lipschitz constant, on vectors and on images."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.activations import Pointwise
from pyro_gflows.nn.branch import LipschitzSum
from pyro_gflows.nn.jacobian import sandwich_jacobian
from pyro_gflows.nn.kernel import kernels_once
from pyro_gflows.nn.linear import LipschitzLinear
from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.nn.networks import EquivariantNetwork
from pyro_gflows.nn.orthogonal_conv import AlmostOrthogonalConv, PolarConv
from pyro_gflows.nn.radial import RadialTerm
from pyro_gflows.nn.rescaled import Rescaled
from pyro_gflows.nn.ridge import Ridges
from pyro_gflows.numerics import dense_jacobian
from pyro_gflows.precision import full_precision
from pyro_gflows.registry import registered

__all__ = ["LipschitzNetwork", "lipschitz_branch"]

_CONVOLUTIONS: dict[str, type[LipschitzConv]] = {
    "spectral": LipschitzConv,
    "almost_orthogonal": AlmostOrthogonalConv,
    "polar": PolarConv,
}


@registered
class LipschitzNetwork(EquivariantNetwork):
    r"""An equivariant branch of one action whose Lipschitz constant stays below ``bound`` for every weight.

    Each linear layer has norm at most :math:`c^{1/(depth + 1)}` by construction and each activation is 1-Lipschitz; the
    bound is the product.

    Args:
        action: how the group moves input and output.
        width: hidden fields.
        depth: hidden layers.
        bound: the constant c, in (0, 1).
        activation: as for EquivariantNetwork; by default learnable splines where fields are permuted, else the soft
            threshold. "gated" has no finite constant, so the bound is infinite.
        layer: how linear layers keep their bounds: "spectral" (LipschitzConv, LipschitzLinear); on images also
            "almost_orthogonal" or "polar".
        units: those of the activations: "fixed", or learnt, one for each "layer" or each "field": which is how
            the bound is split between the layers, as a whole or channel by channel (:class:`Rescaled`).
        bias: "channels", or "pixels" on images, as for EquivariantNetwork.
        mirrored: whether, on images, the last layer starts as the transpose of the first.

    Raises:
        ValueError: a bound outside (0, 1), an unknown activation, layer or kind of units, or nothing to mirror.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> branch = LipschitzNetwork(VectorAction.regular("C4"), bound=0.9)
        >>> bool(branch.lipschitz_bound() <= 0.9 + 1e-6)
        True
    """

    default_activations = ("splines", "soft_threshold")

    def __init__(
        self,
        action: LinearAction,
        *,
        width: int = 8,
        depth: int = 1,
        bound: float = 0.98,
        activation: str | None = None,
        layer: Literal["spectral", "almost_orthogonal", "polar"] = "spectral",
        units: Literal["fixed", "layer", "field"] = "fixed",
        bias: Literal["channels", "pixels"] = "channels",
        mirrored: bool = False,
    ) -> None:
        if not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), got {bound}")
        if layer not in _CONVOLUTIONS or (layer != "spectral" and action.event_dim == 1):
            raise ValueError(f"expected a layer among {sorted(_CONVOLUTIONS)} ('spectral' on vectors), got {layer!r}")
        if mirrored and (depth < 1 or action.event_dim == 1):
            raise ValueError(f"expected images and depth >= 1 for mirrored=True, got {action} and depth {depth}")
        if units not in ("fixed", "layer", "field"):
            raise ValueError(f"expected units 'fixed', 'layer' or 'field', got {units!r}")
        self._layer_bound, self._layer_kind, self._units = bound ** (1 / (depth + 1)), layer, units
        super().__init__(action, action, width=width, depth=depth, activation=activation, bias=bias)
        self.action, self.bound = action, bound
        # a map of norm 1 from few numbers to many makes each of the many small: by the root of the ratio
        ratio = sum(action.field_sizes) / sum(self.hidden(action, width).field_sizes)
        self.hidden_scale = min(1.0, ratio**0.5)
        if mirrored:
            self._mirror()

    def hidden(self, action: LinearAction, width: int) -> LinearAction:
        # norm activations carry nothing from one irrep to another: other irreps than the event's would be dead weight
        return action.regular_fields(width) if action.is_finite else action.copies(width)

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        kind = LipschitzLinear if action_in.event_dim == 1 else _CONVOLUTIONS[self._layer_kind]
        bias = self.bias_of(action_out)
        return kind(action_in, action_out, bound=self._layer_bound, bias=bias)  # type: ignore[arg-type]

    def activation(self, kind: str, action: LinearAction) -> nn.Module:
        plain = super().activation(kind, action)
        return plain if self._units == "fixed" else Rescaled(plain, each_field=self._units == "field")

    def _mirror(self) -> None:
        first, last = self.layers[0], self.layers[-1]
        kernel = first.weight().detach().transpose(0, 1).flip(-1, -2)  # type: ignore[operator]
        last.assign_(kernel.repeat(1, last.action_in.channels // kernel.shape[1], 1, 1))  # type: ignore[operator, union-attr]

    @full_precision
    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant, as the weights are now."""
        bounds = [layer.lipschitz_bound() for layer in self.layers]  # type: ignore[operator]
        constants = [float(activation.lipschitz) for activation in self.activations]  # type: ignore[arg-type]
        return torch.stack(bounds).prod() * math.prod(constants)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and its Jacobian on the flattened event; in closed form with one hidden layer of slopes."""
        closed = len(self.activations) == 1 and isinstance(self.activations[0], Pointwise)
        if not closed:
            differentiable = torch.is_grad_enabled()
            with torch.enable_grad():
                return dense_jacobian(self, x, self.action_in.event_dim, create_graph=differentiable)
        first, last = self.layers
        with kernels_once(self):
            return self._closed_form(x, first, last)

    def _closed_form(self, x: Tensor, first: nn.Module, last: nn.Module) -> tuple[Tensor, Tensor]:
        value, inner, slope, outer = self.activations[0].sandwich(  # type: ignore[operator]
            first(x) / self.hidden_scale,
            first.kernel(),  # type: ignore[operator]
            last.kernel(),  # type: ignore[operator]
        )
        if self.action_in.event_dim == 1:
            jacobian = (outer * slope[..., None, :]) @ inner
        else:
            jacobian = sandwich_jacobian(outer, slope, inner, periodic=self.action_in.padding == "circular")  # type: ignore[attr-defined]
        return last(self.hidden_scale * value), jacobian


def lipschitz_branch(action: LinearAction, *, bound: float = 0.99) -> nn.Module:
    """A residual branch for an action, with Lipschitz constant below ``bound``.

    Vectors under a finite group: ridge and radial terms with closed-form Jacobians. Under a continuous group: radial
    terms, which are all there is on one irreducible vector under O(n); otherwise, and on images, a LipschitzNetwork.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> type(lipschitz_branch(VectorAction.plane("D8"))).__name__
        'LipschitzSum'
    """
    if action.event_dim == 1 and action.is_finite:
        return LipschitzSum([Ridges(action), RadialTerm(action)], bound=bound)
    if action.event_dim == 1 and [isotype.multiplicity for isotype in action.decomposition] == [1]:
        return LipschitzSum([RadialTerm(action)], bound=bound)
    return LipschitzNetwork(action, bound=bound)
