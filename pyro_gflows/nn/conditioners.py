"""Conditioners: the networks that compute the parameters of a layer from a part of the event or from a context."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.networks import EquivariantCNN, EquivariantMLP, EquivariantNetwork

__all__ = ["Conditioner", "conditioner", "conditioner_from"]

Conditioner = Mapping[str, Any] | Callable[[LinearAction, LinearAction], nn.Module]
"""More keywords of :func:`conditioner`; or what makes a network from the actions of its input and its output."""


def conditioner(
    action_in: LinearAction, action_out: LinearAction, *, start: float = 0.0, **keywords: Any
) -> EquivariantNetwork:
    """The default network for a pair of actions: an MLP on vectors, a CNN on images.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output.
        start: A factor on the weights of the last layer; with 0 the output starts at zero.
        keywords: Arguments of :class:`EquivariantNetwork`: width, depth, activation, bias, hidden_fields.

    Example:
        >>> import torch
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.plane("D4")
        >>> conditioner(action, action, width=2)(torch.ones(2)).tolist()
        [0.0, 0.0]
    """
    network = EquivariantMLP if action_in.event_dim == 1 else EquivariantCNN
    return network(action_in, action_out, **keywords).scale_last_(start)


def conditioner_from(
    how: Conditioner | None, action_in: LinearAction, action_out: LinearAction, **defaults: Any
) -> nn.Module:
    """The network that ``how`` describes: the default one with its keywords, or the one that it makes, as it starts.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.regular("C4")
        >>> len(conditioner_from({"depth": 3}, action, action, width=2).layers)
        4
    """
    if callable(how):
        return how(action_in, action_out)
    return conditioner(action_in, action_out, **{**defaults, **(how or {})})
