"""Networks for a pair of actions: an MLP on vectors, a CNN on images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_image, require_linear
from pyro_gflows.nn.activations import Activation, LipSwish, SortedPairs, Splines, Swish
from pyro_gflows.nn.concatenated import ConcatenatedLipSwish, Curves
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.former_weights import swish_of_lipswish
from pyro_gflows.nn.linear import EquivariantLinear
from pyro_gflows.nn.norm_activations import GatedNorm, SoftThresholdNorm
from pyro_gflows.serialization.registry import registered

__all__ = [
    "EquivariantCNN",
    "EquivariantMLP",
    "EquivariantNetwork",
    "LayerChain",
    "activation_class",
    "activation_for",
    "has_regular_fields",
    "hidden_action",
]

_Chain = TypeVar("_Chain", bound="LayerChain")

_ACTIVATIONS: dict[str, type[Activation]] = {
    "clipswish": ConcatenatedLipSwish,
    "curves": Curves,
    "gated": GatedNorm,
    "lipswish": LipSwish,
    "soft_threshold": SoftThresholdNorm,
    "sorted_pairs": SortedPairs,
    "splines": Splines,
    "swish": Swish,
}


def activation_class(name: str | None, action: LinearAction, defaults: tuple[str, str]) -> type[Activation]:
    """The class of the activation of a given name, or of a default one, for an action.

    Args:
        name: The name of the activation, or None for a default.
        action: How the group acts on the fields.
        defaults: The default where the group permutes the fields, and the default elsewhere.

    Raises:
        ValueError: If there is no activation of that name.
    """
    return _ACTIVATIONS[_kind(name, action, defaults)]


def activation_for(action: LinearAction, name: str | None, defaults: tuple[str, str]) -> Activation:
    """The activation of a given name for an action, or a default one.

    Args:
        action: How the group acts on the fields.
        name: The name of the activation, or None for a default.
        defaults: The default where the group permutes the fields, and the default elsewhere.

    Raises:
        ValueError: If there is no activation of that name.
    """
    return activation_class(name, action, defaults)(action)


def _kind(name: str | None, action: LinearAction, defaults: tuple[str, str]) -> str:
    kind = name or defaults[0 if action.is_permutation else 1]
    if kind not in _ACTIVATIONS:
        raise ValueError(f"expected an activation among {sorted(_ACTIVATIONS)}, got {name!r}")
    return kind


_REGULAR_UP_TO = 48  # elements of the group; a regular field has one component for each element


def has_regular_fields(action: LinearAction) -> bool:
    """Whether the default hidden fields are regular ones, as under a small finite group and on images."""
    return action.is_finite and (action.event_dim > 1 or action.group.order <= _REGULAR_UP_TO)


def hidden_action(action: LinearAction, width: int) -> LinearAction:
    """The default action on ``width`` hidden fields.

    Under a small finite group, and on images under a finite group, these are regular fields (one component for each
    element of the group); otherwise ``width`` copies of the event and ``width`` invariants.
    """
    if has_regular_fields(action):
        return action.regular_fields(width)
    return action.trivial_fields(width).direct_sum(action.copies(width))


class LayerChain(nn.Module):
    """A chain of equivariant linear layers and activations.

    A subclass defines ``layer``, the linear layer between two actions. The arguments are those of
    :class:`EquivariantNetwork`.
    """

    default_activations = ("lipswish", "gated")

    def __init__(
        self,
        action_in: LinearAction,
        action_out: LinearAction,
        *,
        width: int = 16,
        depth: int = 2,
        activation: str | None = None,
        bias: Literal["channels", "pixels"] = "channels",
        hidden_fields: Callable[[LinearAction], LinearAction] | None = None,
    ) -> None:
        super().__init__()
        for action in (action_in, action_out):
            require_linear(action)
        if width < 1 or depth < 0:
            raise ValueError(f"expected width >= 1 and depth >= 0, got {width} and {depth}")
        if bias != "channels" and (bias != "pixels" or action_in.event_dim == 1):
            raise ValueError(f"expected bias 'channels' or, on images, 'pixels', got {bias!r} for {action_in}")
        self.action_in, self.action_out, self._bias = action_in, action_out, bias
        hidden = self.hidden(action_in, width) if hidden_fields is None else hidden_fields(action_in)
        kind = _kind(activation, hidden, self.default_activations)
        copies = _ACTIVATIONS[kind].fan_out
        activated = hidden if copies == 1 else hidden.copies(copies)
        sources, targets = [action_in, *[activated] * depth], [*[hidden] * depth, action_out]
        self.layers = nn.ModuleList(self.layer(a, b) for a, b in zip(sources, targets, strict=True))
        self.activations = nn.ModuleList(self.activation(kind, hidden) for _ in range(depth))

    def hidden(self, action: LinearAction, width: int) -> LinearAction:
        """How the group acts on the hidden layers."""
        return hidden_action(action, width)

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        """One linear layer between two actions."""
        raise NotImplementedError

    def bias_of(self, action_out: LinearAction) -> Literal[True, "pixels"]:
        """The kind of bias of the layer with this output; the last layer has one bias for each orbit of channels."""
        return "pixels" if self._bias == "pixels" and action_out is not self.action_out else True

    def activation(self, kind: str, action: LinearAction) -> Activation:
        """One activation of the hidden fields."""
        return _ACTIVATIONS[kind](action)

    def scale_last_(self: _Chain, factor: float) -> _Chain:
        """Multiply the weights of the last layer by a factor; with 0 the output starts at zero."""
        with torch.no_grad():
            for parameter in self.layers[-1].parameters():
                parameter.mul_(factor)
        return self

    def run(self, x: Tensor) -> Tensor:
        """The output of the last layer for an input x."""
        layers = iter(self.layers)
        for activation in self.activations:
            x = activation(next(layers)(x))
        out: Tensor = next(layers)(x)
        return out

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        for position, activation in enumerate(self.activations):
            if isinstance(activation, Swish):
                swish_of_lipswish(state_dict, prefix, position)
        super()._load_from_state_dict(state_dict, prefix, *args)


class EquivariantNetwork(LayerChain):
    r"""A chain of equivariant layers and activations, :math:`\varphi(\rho_{in}(g) x) = \rho_{out}(g) \varphi(x)`.

    Here g is any group element, which acts on inputs and outputs by the matrices :math:`\rho_{in}(g)` and
    :math:`\rho_{out}(g)`. This is the base class of :class:`EquivariantMLP`, for vectors, and :class:`EquivariantCNN`,
    for images, which define the linear layers; :func:`conditioner` chooses between them. A call maps ``batch_shape +
    action_in.event_shape`` to ``batch_shape + action_out.event_shape``. Such a network computes, for example, the
    parameters of a coupling layer from one part of the event.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output.
        width: The number of hidden fields. Under a small finite group these are regular fields, with one component for
            each element of the group.
        depth: The number of hidden layers.
        activation: The name of the activation: "swish", "lipswish", "clipswish", "splines", "curves" or "sorted_pairs"
            (where the group permutes the hidden fields), "soft_threshold" or "gated" (on any vectors). Where the group
            permutes the hidden fields, the default is "swish" on vectors and "lipswish" on images, else "gated".
        bias: The biases of hidden layers: "channels" for one bias for each orbit of channels; on images also "pixels"
            for one bias for each orbit of channels and pixels, which makes the position in the image known to the
            network. This helps if images are centered, and costs H x W weights for each field.
        hidden_fields: A function that makes the action on the hidden layers from that on the input, in place of
            ``width`` fields, such as :class:`~pyro_gflows.nn.HiddenFields`, whose size does not depend on that of the
            event.

    Raises:
        ValueError: If the width is below 1, the depth is negative, the activation is unknown, or the event cannot have
            such a bias.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("D4")
        >>> network: EquivariantNetwork = EquivariantMLP(action, action, activation="lipswish")
        >>> x, (rotation, *_) = torch.randn(5, 2), action.generators()
        >>> torch.allclose(network(action.act(rotation, x)), action.act(rotation, network(x)), atol=1e-5)
        True
    """

    forward = LayerChain.run  # not a call of it, since every layer of a flow runs through here


@registered
class EquivariantMLP(EquivariantNetwork):
    """An equivariant network on vectors, a chain of EquivariantLinear layers and activations.

    The arguments are those of :class:`EquivariantNetwork`.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("D4")
        >>> EquivariantMLP(action, action.trivial_fields(3))(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    default_activations = ("swish", "gated")

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        return EquivariantLinear(action_in, action_out)


@registered
class EquivariantCNN(EquivariantNetwork):
    """An equivariant network on images, a chain of 3x3 EquivariantConv layers and activations.

    The arguments are those of :class:`EquivariantNetwork`.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> action = ImageAction("D4", size=8)
        >>> EquivariantCNN(action, action.copies(2), width=2)(torch.zeros(5, 1, 8, 8)).shape
        torch.Size([5, 2, 8, 8])
    """

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        return EquivariantConv(require_image(action_in), require_image(action_out), bias=self.bias_of(action_out))
