"""How the fixed probes of an estimated log-det follow the group of an action."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pyro_gflows.actions import FiniteGroup, LinearAction
from pyro_gflows.actions.constants import as_constants
from pyro_gflows.numerics import CarriedProbes, OrbitAverage, ProbeImages

__all__ = ["carry", "probe_images"]

_AVERAGED_UP_TO = 64  # elements; the cost of averaging grows with their number, that of carrying does not


def probe_images(action: LinearAction) -> ProbeImages | None:
    """The images of a probe that make an estimate invariant under the group.

    All of them, to be averaged over, where the group has at most 64 elements; else one, carried along with the event;
    None where neither is known.
    """
    if not isinstance(action.group, FiniteGroup):
        return None
    if action.group.order <= _AVERAGED_UP_TO:
        return OrbitAverage(action.act_all)
    return CarriedProbes(functools.partial(carry, action))


def carry(action: LinearAction, probes: Tensor, x: Tensor) -> Tensor:
    r"""The images :math:`\rho(g)\,p` of probes p, with the g that maximises :math:`\langle x, \rho(g)\,w\rangle`.

    Here w is a fixed random event. The maximiser at :math:`\rho(h)\,x` is h g, so the images there are h applied to
    those at x.

    Args:
        action: of a finite group.
        probes: shape ``(count,) + event_shape``.
        x: shape ``batch_shape + event_shape``.

    Returns:
        Shape ``(count,) + batch_shape + event_shape``.
    """
    w = _fixed_event(action.event_shape).to(x)
    scores = x.flatten(x.ndim - action.event_dim) @ action.act_all(w).flatten(1).T
    elements = action.elements().to(x.device)[scores.argmax(-1)]
    batch = (1,) * (x.ndim - action.event_dim)
    return action.act_each(elements, probes.reshape(len(probes), *batch, *action.event_shape))


@functools.cache
@as_constants()
def _fixed_event(shape: torch.Size) -> Tensor:
    return torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
