"""Networks built from a pair of actions: an MLP on vectors, a CNN on images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_image, require_linear
from pyro_gflows.nn.activations import Activation, LipSwish, SortedPairs, Splines
from pyro_gflows.nn.concatenated import ConcatenatedLipSwish, Curves
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.linear import EquivariantLinear
from pyro_gflows.nn.norm_activations import GatedNorm, SoftThresholdNorm
from pyro_gflows.serialization.registry import registered

__all__ = [
    "EquivariantCNN",
    "EquivariantMLP",
    "EquivariantNetwork",
    "LayerChain",
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
}


def activation_for(action: LinearAction, name: str | None, defaults: tuple[str, str]) -> Activation:
    """The activation of that name; without one, the first default where fields are permuted, else the second.

    Raises:
        ValueError: there is none of that name.
    """
    return _ACTIVATIONS[_kind(name, action, defaults)](action)


def _kind(name: str | None, action: LinearAction, defaults: tuple[str, str]) -> str:
    kind = name or defaults[0 if action.is_permutation else 1]
    if kind not in _ACTIVATIONS:
        raise ValueError(f"expected an activation among {sorted(_ACTIVATIONS)}, got {name!r}")
    return kind


_REGULAR_UP_TO = 48  # elements; a regular field is as long as the group is large


def has_regular_fields(action: LinearAction) -> bool:
    """Whether hidden fields are regular ones: under a finite group that is small, and on images."""
    return action.is_finite and (action.event_dim > 1 or action.group.order <= _REGULAR_UP_TO)


def hidden_action(action: LinearAction, width: int) -> LinearAction:
    """``width`` hidden fields: regular ones of a small finite group; else copies of the event and invariants."""
    if has_regular_fields(action):
        return action.regular_fields(width)
    return action.trivial_fields(width).direct_sum(action.copies(width))


class LayerChain(nn.Module):
    """A chain of equivariant layers and activations, of which a subclass says what a linear layer is.

    The arguments are those of :class:`EquivariantNetwork`, whose output is that of the chain.
    """

    default_activations = ("lipswish", "gated")
    hidden_scale = 1.0
    """The size of hidden numbers: activations see them divided by it, so that their bends are where the numbers are."""

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
        """How the group moves the hidden layers."""
        return hidden_action(action, width)

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        """One linear layer between two actions."""
        raise NotImplementedError

    def bias_of(self, action_out: LinearAction) -> Literal[True, "pixels"]:
        """The bias of the layer to that action: of the last, one for each orbit of channels."""
        return "pixels" if self._bias == "pixels" and action_out is not self.action_out else True

    def activation(self, kind: str, action: LinearAction) -> Activation:
        """One activation of the hidden fields."""
        return _ACTIVATIONS[kind](action)

    def scale_last_(self: _Chain, factor: float) -> _Chain:
        """Scale the weights of the last layer; 0 makes the output start at zero."""
        with torch.no_grad():
            for parameter in self.layers[-1].parameters():
                parameter.mul_(factor)
        return self

    def run(self, x: Tensor) -> Tensor:
        """The output of the last layer."""
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            x = self.hidden_scale * activation(layer(x) / self.hidden_scale)
        out: Tensor = self.layers[-1](x)
        return out


class EquivariantNetwork(LayerChain):
    r"""A chain of equivariant layers and activations, :math:`\varphi(\rho_{in}(g) x) = \rho_{out}(g) \varphi(x)`.

    Subclasses say what a linear layer is.

    Args:
        action_in: how the group moves the input.
        action_out: how it moves the output.
        width: hidden fields (regular representations of a finite group).
        depth: hidden layers.
        activation: "lipswish", "clipswish", "splines", "curves", "sorted_pairs" (permutation fields), "soft_threshold",
            "gated" (any); by default LipSwish where fields are permuted, else gates.
        bias: of hidden layers: one for each "channels" orbit; or, on images, one for each orbit of channels and
            "pixels", which tells them where they are. That pays where images are centered, at H x W numbers a field.
        hidden_fields: makes the action on the hidden layers from that on the input, in place of ``width`` fields; such
            as :class:`~pyro_gflows.nn.HiddenFields`, for networks whose size does not follow that of the event.

    Raises:
        ValueError: a width below 1, a negative depth, an unknown activation, or a bias that the event cannot have.
    """

    forward = LayerChain.run  # itself, not a call of it: every layer of a flow runs through here


@registered
class EquivariantMLP(EquivariantNetwork):
    """An :class:`EquivariantNetwork` on vectors, of EquivariantLinear layers.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("D4")
        >>> EquivariantMLP(action, action.trivial_fields(3))(torch.zeros(5, 2)).shape
        torch.Size([5, 3])
    """

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
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

    def layer(self, action_in: LinearAction, action_out: LinearAction) -> nn.Module:
        return EquivariantConv(require_image(action_in), require_image(action_out), bias=self.bias_of(action_out))
