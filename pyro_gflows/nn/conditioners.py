"""Conditioners: the networks that compute the parameters of a layer from a part of the event or from a context."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import nn

from pyro_gflows.actions import LinearAction, RowsAction
from pyro_gflows.nn.networks import EquivariantCNN, EquivariantMLP, EquivariantNetwork
from pyro_gflows.nn.rows_network import RowsNetwork

__all__ = ["Conditioner", "conditioner"]

#: A factory of networks: it makes one from the actions on its input and on its output. A class is such a factory.
Conditioner = Callable[[LinearAction, LinearAction], nn.Module]


def conditioner(
    action_in: LinearAction, action_out: LinearAction, *, start: float = 0.0, **keywords: Any
) -> EquivariantNetwork | RowsNetwork:
    """The default network for a pair of actions: an EquivariantMLP on vectors, an EquivariantCNN on images.

    On rows that are permuted (:class:`~pyro_gflows.RowsAction`) it is a RowsNetwork, whose cost is linear in the rows.
    The network maps ``batch_shape + action_in.event_shape`` to ``batch_shape + action_out.event_shape``.

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
    if isinstance(action_in, RowsAction):
        return RowsNetwork(action_in, action_out, **keywords).scale_last_(start)
    network = EquivariantMLP if action_in.event_dim == 1 else EquivariantCNN
    return network(action_in, action_out, **keywords).scale_last_(start)
