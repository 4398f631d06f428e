"""Residual branches with a certified Lipschitz constant, on vectors and on images."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

from pyro_gflows.actions import ImageAction, LinearAction, RowsAction, TorusAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.branch import LipschitzSum
from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.nn.jacobian import dense_sandwich, sandwich_jacobian, transposed_convolution, transposed_map
from pyro_gflows.nn.lipschitz_chain import LipschitzChain
from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.nn.lipschitz_layers import lipschitz_layer
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.orthogonal_conv import AlmostOrthogonalConv, PolarConv
from pyro_gflows.nn.periodic_network import PeriodicNetwork
from pyro_gflows.nn.pooled_branch import PooledBranch
from pyro_gflows.nn.radial import RadialTerm
from pyro_gflows.nn.rescaled import Rescaled
from pyro_gflows.nn.ridge import Ridges
from pyro_gflows.numerics import Product
from pyro_gflows.numerics.transforms_active import graph_if
from pyro_gflows.serialization.registry import registered

__all__ = ["LipschitzNetwork", "lipschitz_branch"]

_CONVOLUTIONS: dict[str, type[LipschitzConv]] = {
    "spectral": LipschitzConv,
    "almost_orthogonal": AlmostOrthogonalConv,
    "polar": PolarConv,
}


@registered
class LipschitzNetwork(LipschitzChain, Contraction):
    """An equivariant branch whose Lipschitz constant is below ``bound`` for all weights.

    It is the branch f of a residual layer x + f(x): a network whose input and output have the same action. Each linear
    layer has norm at most :math:`c^{1/(depth + 1)}` by construction, and each activation is 1-Lipschitz, so the
    Lipschitz constant of the network is at most the product of these, c.

    Args:
        action: How the group acts on the input and the output.
        width: The number of hidden fields.
        depth: The number of hidden layers.
        bound: The constant c, in (0, 1).
        activation: The name of the activation, as for EquivariantNetwork. The default is learnable splines where the
            group permutes the hidden fields, else the soft threshold. "gated" has no finite Lipschitz constant, so that
            the bound is infinite.
        layer: How the linear layers keep their bounds: "spectral" (LipschitzLinear, LipschitzConv); on images also
            "almost_orthogonal" (AlmostOrthogonalConv) or "polar" (PolarConv).
        units: The scale at which activations bend: "fixed", or one learnable scale for each "layer" or each "field"
            (:class:`Rescaled`). A learnable scale changes how the bound is split between the linear layers.
        bias: "channels", or "pixels" on images, as for EquivariantNetwork.
        mirrored: Whether, on images, the last layer starts as the transpose of the first one.

    Raises:
        ValueError: If the bound is outside (0, 1), the activation, the layer or the units are unknown, or there is
            nothing to mirror.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> branch = LipschitzNetwork(VectorAction.regular("C4"), bound=0.9)
        >>> bool(branch.lipschitz_bound() <= 0.9 + 1e-6)
        True
    """

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
        if layer not in _CONVOLUTIONS or (layer != "spectral" and action.event_dim == 1):
            raise ValueError(f"expected a layer among {sorted(_CONVOLUTIONS)} ('spectral' on vectors), got {layer!r}")
        if mirrored and (depth < 1 or action.event_dim == 1):
            raise ValueError(f"expected images and depth >= 1 for mirrored=True, got {action} and depth {depth}")
        if units not in ("fixed", "layer", "field"):
            raise ValueError(f"expected units 'fixed', 'layer' or 'field', got {units!r}")
        self._layer_kind, self._units = layer, units
        super().__init__(action, action, width=width, depth=depth, bound=bound, activation=activation, bias=bias)
        self.action, self.bound = action, bound
        if mirrored:
            self._mirror()

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        bias, kind = self.bias_of(action_out), _CONVOLUTIONS[self._layer_kind]
        return lipschitz_layer(action_in, action_out, bound=self._layer_bound, bias=bias, convolution=kind)

    def activation(self, kind: str, action: LinearAction) -> Activation:
        plain = super().activation(kind, action)
        return plain if self._units == "fixed" else Rescaled(plain, each_field=self._units == "field")

    def _mirror(self) -> None:
        first, *_, last = each(self.layers, LipschitzConv)
        kernel = first.weight().detach().transpose(0, 1).flip(-1, -2)
        last.assign_(kernel.repeat(1, last.action_in.channels // kernel.shape[1], 1, 1))

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The value f(x) and the Jacobian on the flattened event; a closed form for one hidden pointwise activation."""
        activation = self._pointwise()
        if activation is None:
            return super().call_and_jacobian(x)
        value, inner, slope, outer = self._factors(x, activation)
        if isinstance(self.action, ImageAction):
            return value, sandwich_jacobian(outer, slope, inner, periodic=self.action.padding == "circular")
        return value, dense_sandwich(outer, slope, inner)

    def call_and_pullback(self, x: Tensor) -> tuple[Tensor, Product]:
        """The value f(x) and the map v -> J^T v at x; a closed form for one hidden pointwise activation."""
        return self.call_and_pullbacks(x) or super().call_and_pullback(x)

    def call_and_pullbacks(self, x: Tensor) -> tuple[Tensor, Product] | None:
        """The same for many vectors at each event, of shape ``(n,) + x.shape``; None where there is no closed form."""
        activation = self._pointwise()
        if activation is None:
            return None
        value, inner, slope, outer = self._factors(x, activation)
        across: Callable[[Tensor, Tensor], Tensor] = transposed_map
        if isinstance(self.action, ImageAction):
            across = functools.partial(transposed_convolution, periodic=self.action.padding == "circular")

        def product(vector: Tensor, *, create_graph: bool) -> Tensor:
            with graph_if(create_graph):
                return across(inner, slope * across(outer, vector))

        return value, product


def lipschitz_branch(action: LinearAction | TorusAction, *, bound: float = 0.99) -> Contraction:
    """The default residual branch for an action, with Lipschitz constant below ``bound``.

    On vectors under a finite group whose elements can be listed it is a sum of ridge and radial terms with closed-form
    Jacobians. On vectors under any other group it is a sum of radial terms if the action is irreducible (one smallest
    building block, such as the plane under O(2)). In all other cases, and on images, it is a LipschitzNetwork; on
    angles it is a PeriodicNetwork.
    On vectors under a finite group it is a sum of ridge and radial terms with closed-form Jacobians. On vectors under a
    continuous group it is a sum of radial terms if the action is irreducible (one smallest building block, such as the
    plane under O(2)). On rows it is a PooledBranch, on angles a PeriodicNetwork. In all other cases, and on images, it
    is a LipschitzNetwork.

    Args:
        action: How the group acts on events.
        bound: The Lipschitz bound, in (0, 1).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> type(lipschitz_branch(VectorAction.plane("D8"))).__name__
        'LipschitzSum'
    """
    if isinstance(action, TorusAction):
        return PeriodicNetwork(action, bound=bound)
    require_linear(action)
    if isinstance(action, RowsAction):
        return PooledBranch(action, bound=bound)
    if action.event_dim == 1 and action.is_enumerable:
        return LipschitzSum([Ridges(action), RadialTerm(action)], bound=bound)
    if action.event_dim == 1 and [isotype.multiplicity for isotype in action.decomposition] == [1]:
        return LipschitzSum([RadialTerm(action)], bound=bound)
    return LipschitzNetwork(action, bound=bound)
