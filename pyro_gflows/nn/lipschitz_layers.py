"""The linear layer with a certified norm for a given pair of actions."""

from __future__ import annotations

from typing import Literal

from pyro_gflows.actions import ImageAction, LinearAction
from pyro_gflows.nn.kernel import LipschitzLayer
from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.nn.lipschitz_linear import LipschitzLinear

__all__ = ["lipschitz_layer"]


def lipschitz_layer(
    action_in: LinearAction,
    action_out: LinearAction,
    *,
    bound: float,
    bias: Literal[True, "pixels"] = True,
    convolution: type[LipschitzConv] = LipschitzConv,
) -> LipschitzLayer:
    """A linear layer with a certified norm: LipschitzLinear between vectors, a convolution between images.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output.
        bound: The largest Lipschitz constant.
        bias: The kind of bias, as for EquivariantConv; on vectors only True.
        convolution: The class of the convolution.

    Raises:
        TypeError: If the actions are neither on vectors nor on images.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> type(lipschitz_layer(VectorAction.plane("D4"), VectorAction.plane("D4"), bound=1.0)).__name__
        'LipschitzLinear'
    """
    if action_in.event_dim == 1:
        return LipschitzLinear(action_in, action_out, bound=bound)
    if not isinstance(action_in, ImageAction) or not isinstance(action_out, ImageAction):
        raise TypeError(f"expected actions on vectors or ImageActions, got {action_in} and {action_out}")
    return convolution(action_in, action_out, bound=bound, bias=bias)
