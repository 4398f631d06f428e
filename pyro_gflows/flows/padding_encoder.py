"""The usual density q(a | x) of the padding of events."""

from __future__ import annotations

import functools

from pyro_gflows.actions import LinearAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn import conditioner
from pyro_gflows.transforms import EquivariantTransform, GAffine, g_residual

__all__ = ["g_padding"]


def g_padding(
    action: LinearAction, padding: LinearAction, *, layers: int = 2, width: int = 16, start: float = 1.0
) -> EquivariantFlow:
    """The usual density q(a | x) of a padding: residual layers, then a mean and a scale, all of which read x.

    Args:
        action: How the group acts on x.
        padding: How the group acts on a.
        layers: The number of residual layers; with 0 the density is normal.
        width: Hidden fields of the network of the mean and the scale.
        start: A factor on the last weights of that network before training. With 0 the padding does not depend on x at
            the start; for a padded flow that starts as the identity this is a saddle point of the bound, which
            training leaves slowly or not at all.

    Raises:
        ValueError: ``layers`` is below 0.

    Example:
        >>> import torch
        >>> from pyro_gflows import VectorAction
        >>> plane = VectorAction.plane("D4")
        >>> g_padding(plane, plane).condition(torch.zeros(5, 2)).sample().shape
        torch.Size([5, 2])
    """
    if layers < 0:
        raise ValueError(f"expected layers >= 0, got {layers}")
    parts: list[EquivariantTransform] = [
        g_residual(padding, context_action=action, fast="sample") for _ in range(layers)
    ]
    network = functools.partial(conditioner, width=width, depth=1, start=start)
    affine = GAffine(padding, context_action=action, network=network)
    return EquivariantFlow(InvariantNormal(padding), [*parts, affine])
