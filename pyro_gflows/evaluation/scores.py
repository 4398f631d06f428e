"""Log-likelihoods of a flow on events, its divergence from an exact density, and averages over a group."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from pyro_gflows.actions.base import Action
from pyro_gflows.datasets.checks import as_events
from pyro_gflows.datasets.rows import Rows, as_rows
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.nn.modes import evaluating

if TYPE_CHECKING:
    from pyro_gflows.datasets import GrayLevels
    from pyro_gflows.targets import Density

__all__ = ["gap", "group_bits_per_dim", "group_log_probs", "log_probs", "mean_and_error", "nll", "symmetrized_nll"]


def log_probs(flow: nn.Module, x: Tensor | np.ndarray | Rows | str | Path, *, batch_size: int = 1024) -> Tensor:
    """Returns the log-densities of events under a flow, in evaluation mode and without gradients.

    Args:
        flow: A module whose forward is its log-density.
        x: Events, shape ``(rows,) + event_shape``: a tensor or an array (also a memory-mapped one) of any floating
            dtype, or files of them (:func:`~pyro_gflows.datasets.open_rows`). Each batch is converted to the
            flow's dtype and device.
        batch_size: The number of events that are scored at a time.

    Returns:
        The log-densities in nats, shape ``(rows,)``.

    Raises:
        TypeError: x is not a tensor or an array of a floating dtype.
        ValueError: x has no rows.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> log_probs(flow, torch.tensor([[0.0, 0.0], [1.0, 0.0]]))  # -log(2 pi) and half a nat less
        tensor([-1.8379, -2.3379])
    """
    rows = as_rows(x, source="x")
    if len(rows) == 0:
        raise ValueError(f"x is empty: expected rows of events, got an array of shape {rows.shape}")
    with evaluating(flow):
        return torch.cat([flow(as_events(part, flow)) for part in rows.blocks(batch_size)])


def nll(flow: nn.Module, x: Tensor | np.ndarray | Rows | str | Path, *, batch_size: int = 1024) -> float:
    """Returns the mean negative log-density (NLL) of events under a flow, in nats.

    The mean is accumulated in float64. If a layer estimates its log-det, as large residual layers do, the NLL has an
    error that more events do not reduce; :func:`log_det_error` measures it.

    Args:
        flow: A module whose forward is its log-density.
        x: Events, shape ``(rows,) + event_shape``.
        batch_size: The number of events that are scored at a time.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> round(nll(flow, torch.zeros(10, 2)), 4)  # log(2 pi)
        1.8379
    """
    return -float(log_probs(flow, x, batch_size=batch_size).double().mean())


def gap(flow: nn.Module, target: Density, *, n: int | None = None, generator: torch.Generator) -> tuple[float, float]:
    r"""Returns the divergence of a flow from an exact density, and its standard error, both in nats.

    It is the Kullback-Leibler divergence :math:`E_p[\log p(x) - \log q(x)]` of the flow q from the target p, estimated
    from fresh samples of the target. It is 0 only if the flow equals the target, so it measures what a fit has missed
    without an unknown entropy in it.

    Args:
        flow: A module whose forward is its log-density.
        target: A density that can be scored and sampled exactly.
        n: The number of samples; by default ``target.test_points``.
        generator: The random generator of the samples.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> from pyro_gflows.targets import Rings
        >>> action = VectorAction.plane("O(2)")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> value, error = gap(flow, Rings(), n=1000, generator=torch.Generator().manual_seed(0))
        >>> value > 10 * error
        True
    """
    like = next(flow.parameters())
    x = target.sample(target.test_points if n is None else n, generator).to(like)
    return mean_and_error(target.log_prob(x.double()) - log_probs(flow, x).double())


def mean_and_error(values: Tensor) -> tuple[float, float]:
    """The mean of independent values and the standard error of that mean, std(values) / sqrt(n).

    Args:
        values: Independent values, shape ``(n,)``.

    Example:
        >>> mean_and_error(torch.tensor([0.0, 4.0, 4.0, 0.0, 2.0, 4.0, 0.0, 2.0, 2.0], dtype=torch.float64))
        (2.0, 0.5773502691896257)
    """
    return float(values.mean()), float(values.std()) / math.sqrt(len(values))


def group_log_probs(
    flow: nn.Module,
    x: Tensor | np.ndarray,
    action: Action,
    *,
    elements: Tensor | None = None,
    batch_size: int = 1024,
) -> Tensor:
    """Returns the log-densities of all images of the events under a group.

    Args:
        flow: A module whose forward is its log-density.
        x: Events, shape ``(rows,) + event_shape``.
        action: How the group acts on an event.
        elements: The group elements to apply; by default all elements of a finite group.
        batch_size: The number of events that are scored at a time.

    Returns:
        The log-density of the image of each row under each element, shape ``(elements, rows)``.

    Raises:
        ValueError: No elements were passed, and the group is infinite or too large to list its elements.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> scores = group_log_probs(flow, torch.randn(5, 2), action)
        >>> scores.shape, torch.allclose(scores, scores[:1], atol=1e-5)
        (torch.Size([4, 5]), True)
    """
    if elements is None:
        elements = require_enumerable(action.group, "an evaluation of all images").elements()
    x = as_events(x, flow)
    return torch.stack([log_probs(flow, action.act(element, x), batch_size=batch_size) for element in elements])


def group_bits_per_dim(flow: nn.Module, x: Tensor | np.ndarray, action: Action, *, scaling: GrayLevels) -> float:
    """Returns the bits per dimension of a flow, averaged over all images of the test set under a finite group.

    It shows how well a flow without the symmetry would score a test set that contains every image in every pose.

    Args:
        flow: A module whose forward is its log-density.
        x: Scaled images, shape ``(rows,) + event_shape``.
        action: How the group acts on an image.
        scaling: The scaling of the images, which converts nats to bits per dimension.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, ImageAction, InvariantNormal
        >>> from pyro_gflows.datasets import GrayLevels
        >>> action = ImageAction("C4", size=2)
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> round(group_bits_per_dim(flow, torch.zeros(3, 1, 2, 2), action, scaling=GrayLevels(17)), 4)
        5.4132
    """
    mean = -float(group_log_probs(flow, x, action).double().mean())
    return scaling.bits_per_dim(mean, pixels=math.prod(action.event_shape))


def symmetrized_nll(flow: nn.Module, x: Tensor | np.ndarray, action: Action) -> float:
    r"""Returns the NLL, in nats, of a flow that is made invariant at test time by averaging over a finite group.

    It is the mean of :math:`-\log \frac{1}{|G|} \sum_g p(g x)`. The average over the group is an invariant density,
    which costs one evaluation of the flow for each element; so it is the simplest competitor of an equivariant flow.

    Args:
        flow: A module whose forward is its log-density; it need not be invariant.
        x: Events, shape ``(rows,) + event_shape``.
        action: How the group acts on an event.

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> x = torch.randn(5, 2)
        >>> abs(symmetrized_nll(flow, x, action) - nll(flow, x)) < 1e-5  # this flow is invariant already
        True
    """
    images = group_log_probs(flow, x, action).double()
    return -float((torch.logsumexp(images, dim=0) - math.log(len(images))).mean())
