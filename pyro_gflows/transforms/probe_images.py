"""How the fixed probes of an estimated log-det follow the group of an action."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.groups import EnumerableGroup
from pyro_gflows.numerics import CarriedProbes, OrbitAverage, ProbeImages

__all__ = ["carry", "probe_images"]

_AVERAGED_UP_TO = 64  # elements; the cost of averaging grows with their number, that of carrying does not


def probe_images(action: Action) -> ProbeImages | None:
    """The images of a probe that make an estimate invariant under the group.

    All of them, to be averaged over, where the group has at most 64 elements; else one, carried along with the event;
    None where neither is known.
    """
    if isinstance(action.group, EnumerableGroup) and action.group.order <= _AVERAGED_UP_TO:
        return OrbitAverage(action.act_all)
    if action.canonical(torch.zeros(action.event_shape)) is None:
        return None
    return CarriedProbes(functools.partial(carry, action))


def carry(action: Action, probes: Tensor, x: Tensor) -> Tensor:
    r"""The images :math:`g(x)^{-1} p` of probes p, where :math:`g(x)` takes x to its canonical form.

    For h x in place of x it is :math:`g(x)\,h^{-1}`, so the images there are h applied to those at x. (Where h x has
    several such elements, they differ by one that leaves x alone.)

    Args:
        action: One whose ``canonical`` is known.
        probes: Shape ``(count,) + event_shape``.
        x: Shape ``batch_shape + event_shape``.

    Returns:
        Shape ``(count,) + batch_shape + event_shape``.
    """
    elements = action.canonical(x)
    assert elements is not None
    batch = (1,) * (x.ndim - action.event_dim)
    back = action.group.inverse(elements)
    return action.act_each(back, probes.reshape(len(probes), *batch, *action.event_shape))
