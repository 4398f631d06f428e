"""Measures how far a density is from being invariant under a group."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from pyro_gflows.actions.base import Action
from pyro_gflows.datasets.checks import as_events
from pyro_gflows.evaluation.scores import group_log_probs, log_probs

__all__ = ["ALL_UP_TO", "InvarianceReport", "invariance_error", "invariance_errors", "invariance_report"]

ALL_UP_TO = 1024
"""The largest order of a group of which all elements are tried."""


def invariance_errors(
    flow: nn.Module, x: Tensor | np.ndarray, action: Action, *, generator: torch.Generator | None = None
) -> Tensor:
    r"""Returns how much group elements change the log-density of events, relative to its size.

    The error is :math:`|\log p(g x) - \log p(x)| / \max(1, |\log p(x)|)`. All elements g are tried if the group has at
    most 1024 of them; otherwise its generators and 16 random elements for each row.

    Args:
        flow: A module whose forward is its log-density. In float64 the error shows the symmetry of the flow; in float32
            it mostly shows rounding.
        x: Events, shape ``(rows,) + event_shape``.
        action: How the group acts on an event; it may differ from the flow's own action.
        generator: The random generator of the random elements.

    Returns:
        The errors, shape ``(elements, rows)``.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)]).double()
        >>> errors = invariance_errors(flow, torch.randn(5, 2), action)
        >>> errors.shape, bool((errors < 1e-12).all())
        (torch.Size([8, 5]), True)
    """
    x = as_events(x, flow)
    here = log_probs(flow, x)
    if action.group.order <= ALL_UP_TO:
        there = group_log_probs(flow, x, action)
    else:
        fixed = group_log_probs(flow, x, action, elements=action.generators())
        drawn = [action.act_each(action.sample((len(x),), generator=generator), x) for _ in range(16)]
        there = torch.cat([fixed, torch.stack([log_probs(flow, images) for images in drawn])])
    return (there - here).abs() / here.abs().clamp(min=1)


def invariance_error(
    flow: nn.Module, x: Tensor | np.ndarray, action: Action, *, generator: torch.Generator | None = None
) -> float:
    """Returns the largest of the :func:`invariance_errors` over all elements and events.

    Args:
        flow: A module whose forward is its log-density, best in float64.
        x: Events, shape ``(rows,) + event_shape``.
        action: How the group acts on an event; it may differ from the flow's own action.
        generator: The random generator of the random elements.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)]).double()
        >>> invariance_error(flow, torch.randn(5, 2), action) < 1e-12
        True
    """
    return float(invariance_errors(flow, x, action, generator=generator).max())


@dataclass(frozen=True)
class InvarianceReport:
    """The result of :func:`invariance_report`: relative errors as of :func:`invariance_errors`.

    Attributes:
        worst: The largest error over all elements and events.
        mean: The mean error over all elements and events.

    Example:
        >>> InvarianceReport(worst=2e-15, mean=1e-16)
        InvarianceReport(worst=2e-15, mean=1e-16)
    """

    worst: float
    mean: float


def invariance_report(
    flow: nn.Module,
    x: Tensor | np.ndarray,
    action: Action,
    *,
    rows: int = 128,
    generator: torch.Generator | None = None,
) -> InvarianceReport:
    """Measures the invariance error of a flow in float64, so that rounding does not hide its symmetry.

    The flow is copied to float64 and stays as it is.

    Args:
        flow: A module whose forward is its log-density.
        x: Events, shape ``(n,) + event_shape``.
        action: How the group acts on an event; it may differ from the flow's own action.
        rows: The number of events that are used, from the first on.
        generator: The random generator of the random elements.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])  # in float32
        >>> invariance_report(flow, torch.randn(5, 2), action).worst < 1e-12
        True
    """
    exact = copy.deepcopy(flow).double()
    events = as_events(x[:rows], exact)
    if events.shape[1:] == action.event_shape:  # events of float32 miss a curved or mean-free space by their rounding
        events = action.space.project(events)
    errors = invariance_errors(exact, events, action, generator=generator)
    return InvarianceReport(float(errors.max()), float(errors.mean()))
