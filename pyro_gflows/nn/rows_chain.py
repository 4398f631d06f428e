"""RowsChain: linear maps of rows and activations in turn, between two layouts of rows."""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from pyro_gflows.actions import Action, RowsAction, RowTables, VectorAction
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.networks import activation_class
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.rows_hidden import RowsActivation, hidden_features
from pyro_gflows.nn.rows_linear import RowsLinear

__all__ = ["RowsChain", "require_rows"]

_Chain = TypeVar("_Chain", bound="RowsChain")


def require_rows(action: Action) -> RowsAction:
    """The action, if a network on rows can read its events.

    Args:
        action: How the group acts.

    Raises:
        TypeError: If it is not a RowsAction, or has matrix fields.
    """
    if not isinstance(action, RowsAction):
        raise TypeError(f"expected a RowsAction, whose events consist of rows, got {action}")
    if action.has_matrix_fields:
        raise TypeError(
            f"expected an action without matrix fields, which networks on rows do not read, got {action}; canonical "
            "forms carry matrix fields along (Canonicalized)"
        )
    return action


class RowsChain(nn.Module):
    """Equivariant linear maps of rows and activations in turn, between two layouts of rows.

    Args:
        layout_in: What the rows of the input consist of.
        layout_out: What the rows of the output consist of.
        width: The number of hidden fields of a row.
        depth: The number of hidden layers.
        activation: The name of the activation, or None for the default one.

    Raises:
        ValueError: If the width is below 1, the depth is negative, or the activation is unknown.

    Example:
        >>> action = RowsAction(50, 2)
        >>> features = RowFeatures.of(action.layout)
        >>> chain = RowsChain(features, features, width=4, depth=1, activation=None)
        >>> chain.run(action.unpack(torch.zeros(5, 100))).even[0].shape
        torch.Size([5, 50, 2])
    """

    default_activations = ("lipswish", "gated")

    def __init__(
        self, layout_in: RowFeatures, layout_out: RowFeatures, *, width: int, depth: int, activation: str | None
    ) -> None:
        super().__init__()
        if width < 1 or depth < 0:
            raise ValueError(f"expected width >= 1 and depth >= 0, got {width} and {depth}")
        features = self.hidden(layout_in, layout_out, width)
        kind = self.checked(activation_class(activation, features, self.default_activations))
        hidden = layout_in.hidden(layout_out, features)
        activated = layout_in.hidden(layout_out, features.copies(kind.fan_out))
        sources, targets = [layout_in, *[activated] * depth], [*[hidden] * depth, layout_out]
        self.layers = nn.ModuleList(self.layer(a, b) for a, b in zip(sources, targets, strict=True))
        scale = self.hidden_scale(layout_in, features)
        self.activations = nn.ModuleList(RowsActivation(hidden, kind, scale=scale) for _ in range(depth))

    def hidden(self, layout_in: RowFeatures, layout_out: RowFeatures, width: int) -> VectorAction:
        """How H acts on the hidden features of one row."""
        # of other kinds than those of the input every feature would be 0
        return hidden_features(layout_in, width=width)

    def hidden_scale(self, layout_in: RowFeatures, features: VectorAction) -> float:
        """The typical size of hidden features, at which the activations bend."""
        return 1.0

    def checked(self, activation: type[Activation]) -> type[Activation]:
        """The class of the activation, if it suits the network."""
        return activation

    def layer(self, layout_in: RowFeatures, layout_out: RowFeatures) -> nn.Module:
        """One linear map between two layouts."""
        return RowsLinear(layout_in, layout_out)

    def run(self, rows: RowTables, mask: Tensor | None = None) -> RowTables:
        """The output of the last layer.

        Args:
            rows: The input.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``; None where all are.
        """
        for layer, activation in zip(self.layers[:-1], self.activations, strict=True):
            rows = activation(layer(rows, mask))
        found: RowTables = self.layers[-1](rows, mask)
        return found

    def scale_last_(self: _Chain, factor: float) -> _Chain:
        """Multiply the weights of the last layer by a factor; with 0 the output starts at zero."""
        with torch.no_grad():
            for parameter in self.layers[-1].parameters():
                parameter.mul_(factor)
        return self
