"""How the fixed probes of an estimated log-det follow the group of an action."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from pyro_gflows.actions import Action, RowsAction, TorusAction
from pyro_gflows.groups import EnumerableGroup
from pyro_gflows.numerics import CarriedProbes, OrbitAverage, ProbeImages
from pyro_gflows.transforms.row_probes import CarriedRowProbes, RowProbes

__all__ = ["carry", "linear_action", "probe_images"]

_AVERAGED_UP_TO = 64  # elements; the cost of averaging grows with their number, that of carrying does not


def linear_action(action: Action) -> Action:
    """How the group acts on the displacements of events, such as probes: on a torus by the matrices M alone."""
    return action.linear_part if isinstance(action, TorusAction) else action


def probe_images(action: Action) -> ProbeImages | None:
    """The images of the probes that make an estimated log-det invariant under the group.

    Where the group has at most 64 elements, the estimate averages over all images of each probe. Where it has more, one
    image of each probe follows the event; on rows whose features another group acts on, the order of the rows follows
    it (:class:`~pyro_gflows.transforms.row_probes.RowProbes`). None where the action has no canonical form either.
    """
    if isinstance(action.group, EnumerableGroup) and action.group.order <= _AVERAGED_UP_TO:
        return OrbitAverage(action.act_all)
    if isinstance(action, RowsAction) and action.structure.has_inner:
        return None if action.has_matrix_fields else RowProbes(action)
    if action.canonical(torch.zeros(action.event_shape)) is None:
        return None
    kind = CarriedRowProbes if isinstance(action, RowsAction) else CarriedProbes
    return kind(functools.partial(carry, action))


def carry(action: Action, probes: Tensor, x: Tensor) -> Tensor:
    r"""The images :math:`g(x)^{-1} p` of probes p, where :math:`g(x)` takes x to its canonical form.

    The element for h x is :math:`g(x)\,h^{-1}`, so the images of the probes for h x are h applied to those for x.
    (Where several elements take x to its canonical form, they differ by an element that leaves x unchanged.)

    Args:
        action: An action whose ``canonical`` is known.
        probes: Probes of shape ``(count,) + event_shape``.
        x: Events of shape ``batch_shape + event_shape``.

    Returns:
        Shape ``(count,) + batch_shape + event_shape``.
    """
    elements = action.canonical(x)
    assert elements is not None
    batch = (1,) * (x.ndim - action.event_dim)
    back = action.group.inverse(elements)
    return action.act_each(back, probes.reshape(len(probes), *batch, *action.event_shape))
