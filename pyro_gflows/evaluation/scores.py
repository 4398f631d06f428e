"""Held-out figures of a flow: NLL, gap to an exact density, bits per dimension, and how invariant it really is."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pyro_gflows.actions.base import Action
from pyro_gflows.datasets.checks import as_events
from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.nn.modes import evaluating

if TYPE_CHECKING:
    from pyro_gflows.datasets import GrayLevels
    from pyro_gflows.targets import Density

ALL_UP_TO = 1024
"""Of a larger group, not every element is tried."""

__all__ = [
    "InvarianceReport",
    "gap",
    "group_bits_per_dim",
    "group_log_probs",
    "invariance_error",
    "invariance_errors",
    "invariance_report",
    "log_probs",
    "mean_and_error",
    "nll",
    "symmetrized_nll",
]


def log_probs(flow: nn.Module, x: Tensor | np.ndarray, *, batch_size: int = 1024) -> Tensor:
    """Log-densities in nats of the rows of x, shape (rows,), in evaluation mode and without gradients.

    Args:
        flow: A module whose forward is its log-density.
        x: Events, shape (rows,) + event_shape; a tensor or an array (also a memory-mapped one) of any floating dtype,
            taken into the flow's a part at a time.
        batch_size: Rows scored at a time.

    Raises:
        TypeError: Neither a tensor nor an array, or not of a floating dtype.
        ValueError: No rows.
    """
    rows = as_rows(x, source="x")
    if len(rows) == 0:
        raise ValueError(f"x is empty: expected rows of events, got an array of shape {tuple(x.shape)}")
    with evaluating(flow):
        return torch.cat([flow(as_events(part, flow)) for part in rows.blocks(batch_size)])


def nll(flow: nn.Module, x: Tensor | np.ndarray, *, batch_size: int = 1024) -> float:
    """Mean negative log-density in nats, accumulated in float64.

    Where a layer estimates its log-det (large residual layers do), so is this figure: its error, which no number of
    events makes smaller, is that of :func:`log_det_error`.
    """
    return -float(log_probs(flow, x, batch_size=batch_size).double().mean())


def gap(flow: nn.Module, target: Density, *, n: int = 200_000, generator: torch.Generator) -> tuple[float, float]:
    """The divergence KL(target | flow) in nats over n fresh points, and its standard error.

    It is the mean of log p_target(x) - log p_flow(x), with both terms exact.
    """
    like = next(flow.parameters())
    x = target.sample(n, generator).to(like)
    return mean_and_error(target.log_prob(x.double()) - log_probs(flow, x).double())


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of independent values, shape (n,), and its standard error."""
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def group_log_probs(
    flow: nn.Module,
    x: Tensor | np.ndarray,
    action: Action,
    *,
    elements: Tensor | None = None,
    batch_size: int = 1024,
) -> Tensor:
    """Log-densities log p(g x) for every element g (by default all of a finite group) and every row, (|G|, rows).

    Raises:
        ValueError: No elements are given, and the group is not finite.
    """
    if elements is None:
        elements = require_enumerable(action.group, "an evaluation of all images").elements()
    x = as_events(x, flow)
    return torch.stack([log_probs(flow, action.act(element, x), batch_size=batch_size) for element in elements])


def group_bits_per_dim(flow: nn.Module, x: Tensor | np.ndarray, action: Action, *, scaling: GrayLevels) -> float:
    """Bits per dimension averaged over the group: the price of a test set that holds every image in every pose."""
    mean = -float(group_log_probs(flow, x, action).double().mean())
    return scaling.bits_per_dim(mean, pixels=math.prod(action.event_shape))


def symmetrized_nll(flow: nn.Module, x: Tensor | np.ndarray, action: Action) -> float:
    """Mean of -log mean_g p(g x): a flow without the symmetry, made invariant at test time at |G| times the cost."""
    images = group_log_probs(flow, x, action).double()
    return -float((torch.logsumexp(images, dim=0) - math.log(len(images))).mean())


def invariance_errors(
    flow: nn.Module, x: Tensor | np.ndarray, action: Action, *, generator: torch.Generator | None = None
) -> Tensor:
    """|log p(g x) - log p(x)| / max(1, |log p(x)|) for elements g and rows x, shape (elements, rows).

    All elements of a group of at most 1024; of a larger or continuous one its generators and 16 random elements a row.

    Args:
        flow: A module whose forward is its log-density; use float64 to see the structure and not the rounding.
        x: Events, shape (rows,) + event_shape.
        action: The group whose invariance is measured; it need not be the flow's own.
        generator: Of the random elements.
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
    """The worst of :func:`invariance_errors`."""
    return float(invariance_errors(flow, x, action, generator=generator).max())


@dataclass(frozen=True)
class InvarianceReport:
    """Worst and mean of :func:`invariance_errors` over elements and rows."""

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
    """Worst and mean invariance error of a float64 copy of a flow, over the first ``rows`` events."""
    errors = invariance_errors(copy.deepcopy(flow).double(), x[:rows], action, generator=generator)
    return InvarianceReport(float(errors.max()), float(errors.mean()))
