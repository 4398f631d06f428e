"""Networks built from a pair of actions: an MLP on vectors, a CNN on images, free or with a certified bound."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from pyro_gflows.actions import GroupAction
from pyro_gflows.nn.activations import LipSwish, SortedPairs, Splines
from pyro_gflows.nn.branch import LipschitzSum
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.jacobian import sandwich_jacobian
from pyro_gflows.nn.kernel import kernels_once
from pyro_gflows.nn.linear import EquivariantLinear, LipschitzLinear
from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.nn.norm_activations import GatedNorm, SoftThresholdNorm
from pyro_gflows.nn.radial import RadialTerm
from pyro_gflows.nn.ridge import Ridges
from pyro_gflows.numerics import dense_jacobian
from pyro_gflows.registry import registered

__all__ = [
    "EquivariantCNN",
    "EquivariantMLP",
    "EquivariantNetwork",
    "LipschitzNetwork",
    "conditioner",
    "hidden_action",
    "lipschitz_branch",
]

_ACTIVATIONS: dict[str, Callable[[GroupAction], nn.Module]] = {
    "gated": GatedNorm,
    "lipswish": LipSwish,
    "soft_threshold": SoftThresholdNorm,
    "sorted_pairs": SortedPairs,
    "splines": Splines,
}


def hidden_action(action: GroupAction, width: int) -> GroupAction:
    """``width`` hidden fields: regular ones of a finite group; else copies of the event's irreps and invariants."""
    if action.is_finite:
        return action.regular_fields(width)
    return action.trivial_fields(width).direct_sum(action.copies(width))


class EquivariantNetwork(nn.Module):
    r"""A chain of equivariant layers and activations, :math:`\varphi(\rho_{in}(g) x) = \rho_{out}(g) \varphi(x)`.

    Subclasses say what a linear layer is.

    Args:
        action_in: how the group moves the input.
        action_out: how it moves the output.
        width: hidden fields (regular representations of a finite group).
        depth: hidden layers.
        activation: "lipswish", "splines", "sorted_pairs" (permutation fields), "soft_threshold", "gated" (any); by
            default LipSwish where fields are permuted, else gates.
    """

    default_activations = ("lipswish", "gated")

    def __init__(
        self,
        action_in: GroupAction,
        action_out: GroupAction,
        *,
        width: int = 16,
        depth: int = 2,
        activation: str | None = None,
    ) -> None:
        super().__init__()
        if width < 1 or depth < 0:
            raise ValueError(f"expected width >= 1 and depth >= 0, got {width} and {depth}")
        self.action_in, self.action_out = action_in, action_out
        hidden = self.hidden(action_in, width)
        chain = [action_in, *[hidden] * depth, action_out]
        self.layers = nn.ModuleList(self.layer(a, b) for a, b in itertools.pairwise(chain))
        kind = activation or self.default_activations[0 if hidden.is_permutation else 1]
        if kind not in _ACTIVATIONS:
            raise ValueError(f"expected an activation among {sorted(_ACTIVATIONS)}, got {activation!r}")
        self.activations = nn.ModuleList(self.activation(kind, hidden) for _ in range(depth))

    def hidden(self, action: GroupAction, width: int) -> GroupAction:
        """How the group moves the hidden layers."""
        return hidden_action(action, width)

    def layer(self, action_in: GroupAction, action_out: GroupAction) -> nn.Module:
        """One linear layer between two actions."""
        raise NotImplementedError

    def activation(self, kind: str, action: GroupAction) -> nn.Module:
        """One activation of the hidden fields."""
        return _ACTIVATIONS[kind](action)

    def scale_last_(self, factor: float) -> EquivariantNetwork:
        """Scale the weights of the last layer; 0 makes the output start at zero."""
        with torch.no_grad():
            for parameter in self.layers[-1].parameters():
                parameter.mul_(factor)
        return self

    def forward(self, x: Tensor) -> Tensor:
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = activation(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


@registered
class EquivariantMLP(EquivariantNetwork):
    """An :class:`EquivariantNetwork` on vectors, of EquivariantLinear layers.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("D4")
        >>> EquivariantMLP(action, action.trivial_fields(3))(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def layer(self, action_in: GroupAction, action_out: GroupAction) -> nn.Module:
        return EquivariantLinear(action_in, action_out)


@registered
class EquivariantCNN(EquivariantNetwork):
    """An :class:`EquivariantNetwork` on images, of 3x3 EquivariantConv layers.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> action = ImageAction("D4", size=8)
        >>> EquivariantCNN(action, action.copies(2), width=2)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2, 8, 8])
    """

    def layer(self, action_in: GroupAction, action_out: GroupAction) -> nn.Module:
        return EquivariantConv(action_in, action_out)  # type: ignore[arg-type]  # it checks


def conditioner(
    action_in: GroupAction, action_out: GroupAction, *, width: int = 16, depth: int = 2, start: float = 0.0
) -> EquivariantNetwork:
    """The network for a pair of actions: an MLP on vectors, a CNN on images; ``start`` scales its last layer."""
    network = EquivariantMLP if action_in.event_dim == 1 else EquivariantCNN
    return network(action_in, action_out, width=width, depth=depth).scale_last_(start)


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

    Raises:
        ValueError: a bound outside (0, 1), or an unknown activation.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> branch = LipschitzNetwork(VectorAction.regular("C4"), bound=0.9)
        >>> bool(branch.lipschitz_bound() <= 0.9 + 1e-6)
        True
    """

    default_activations = ("splines", "soft_threshold")

    def __init__(
        self,
        action: GroupAction,
        *,
        width: int = 8,
        depth: int = 1,
        bound: float = 0.98,
        activation: str | None = None,
    ) -> None:
        if not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), got {bound}")
        self._layer_bound = bound ** (1 / (depth + 1))
        super().__init__(action, action, width=width, depth=depth, activation=activation)
        self.action, self.bound = action, bound

    def hidden(self, action: GroupAction, width: int) -> GroupAction:
        # norm activations carry nothing from one irrep to another: other irreps than the event's would be dead weight
        return action.regular_fields(width) if action.is_finite else action.copies(width)

    def layer(self, action_in: GroupAction, action_out: GroupAction) -> nn.Module:
        kind = LipschitzLinear if action_in.event_dim == 1 else LipschitzConv
        return kind(action_in, action_out, bound=self._layer_bound)  # type: ignore[arg-type]

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant, as the weights are now."""
        bounds = [layer.lipschitz_bound() for layer in self.layers]  # type: ignore[operator]
        constants = [float(activation.lipschitz) for activation in self.activations]  # type: ignore[arg-type]
        return torch.stack(bounds).prod() * math.prod(constants)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and its Jacobian on the flattened event; in closed form with one hidden layer of slopes."""
        closed = len(self.activations) == 1 and hasattr(self.activations[0], "value_and_slope")
        if not closed or getattr(self.action_in, "padding", "zero") != "zero":
            differentiable = torch.is_grad_enabled()
            with torch.enable_grad():
                return dense_jacobian(self, x, self.action_in.event_dim, create_graph=differentiable)
        first, last = self.layers
        with kernels_once(self):
            return self._closed_form(x, first, last)

    def _closed_form(self, x: Tensor, first: nn.Module, last: nn.Module) -> tuple[Tensor, Tensor]:
        value, slope = self.activations[0].value_and_slope(first(x))  # type: ignore[operator]
        if self.action_in.event_dim == 1:
            jacobian = (last.kernel() * slope[..., None, :]) @ first.kernel()  # type: ignore[operator]
        else:
            jacobian = sandwich_jacobian(last.kernel(), slope, first.kernel())  # type: ignore[operator]
        return last(value), jacobian


def lipschitz_branch(action: GroupAction, *, bound: float = 0.99) -> nn.Module:
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
