"""All that is told of an image flow on held-out images, from one call."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.actions import Action
from pyro_gflows.datasets.checks import as_events
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.evaluation.estimation_error import log_det_error
from pyro_gflows.evaluation.scores import ALL_UP_TO, group_log_probs, invariance_report, log_probs
from pyro_gflows.flows.dequantization import DequantizedFlow, VariationalDequantizer
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn.modes import evaluating
from pyro_gflows.numerics.random_state import random_state_kept

if TYPE_CHECKING:
    from pyro_gflows.datasets import GrayLevels
    from pyro_gflows.training import FitResult

__all__ = ["ImageReport", "image_report"]


@dataclass(frozen=True)
class ImageReport:
    """What :func:`image_report` found.

    Where all log-dets are exact, all bits are upper bounds of the code length of a pixel's level. Where layers estimate
    them, as large residual layers do, all bits share the error that the last figures state, and may be too low by it.

    Attributes:
        bits_per_dim: of the images as they are, by uniform noise or the ELBO of a dequantizer.
        group_bits_per_dim: the same averaged over every pose that the grid carries.
        symmetrized_bits_per_dim: of the flow averaged over those poses at test time, at |G| times the cost; with a
            dequantizer each pose has noise of its own, which tightens the bound as more draws do.
        importance_bits_per_dim: by the importance-weighted bound; None without a dequantizer.
        importance_draws: of that bound.
        invariance_error, mean_invariance_error: worst and mean of |log p(g x) - log p(x)| / max(1, |log p(x)|), in
            float64.
        invariance_group: whose elements g they are.
        parameters: trainable numbers of the flow.
        seconds_per_step: of its training, where a FitResult was given.
        log_det_standard_error: of the mean log-density, in nats for each image, from estimated log-dets; 0 where all
            are exact. It is common to all images, so that more of them do not make it smaller.
        log_det_bits_standard_error: the same in bits per dimension.
        log_det_truncation: a bound, in nats for each image, of what cutting the power series of the log-dets adds to
            that, either way.
    """

    bits_per_dim: float
    group_bits_per_dim: float | None
    symmetrized_bits_per_dim: float | None
    importance_bits_per_dim: float | None
    importance_draws: int | None
    invariance_error: float
    mean_invariance_error: float
    invariance_group: str
    parameters: int
    seconds_per_step: float | None
    log_det_standard_error: float = 0.0
    log_det_bits_standard_error: float = 0.0
    log_det_truncation: float = 0.0

    def known(self) -> dict[str, Any]:
        """The figures that there are, by name, for a JSON file."""
        return {name: value for name, value in dataclasses.asdict(self).items() if value is not None}


@renamed_arguments(dequantiser="dequantizer")
def image_report(
    flow: EquivariantFlow,
    images: Tensor | np.ndarray,
    scaling: GrayLevels,
    *,
    action: Action | None = None,
    dequantizer: VariationalDequantizer | None = None,
    draws: int = 16,
    result: FitResult | None = None,
    seed: int = 0,
) -> ImageReport:
    """Score a flow on held-out images: bits per dimension, invariance, size and speed.

    Args:
        flow: the flow of the scaled images.
        images: dequantized and scaled, shape ``(rows,) + event_shape``.
        scaling: theirs.
        action: the group over which to average and measure, by default the flow's. Of one that interpolates between
            pixels all elements are measured, and only the exact ones averaged over; for an infinite one, the flow's.
        dequantizer: gives the noise; None scores the images with the noise that they have.
        draws: of the importance-weighted bound, with a dequantizer.
        result: what ``fit`` returned.
        seed: of all that is drawn; the caller's random state is left as it was.

    Example:
        >>> from pyro_gflows import ImageAction, g_coupling_image_flow
        >>> from pyro_gflows.datasets import GrayLevels
        >>> flow = g_coupling_image_flow(ImageAction("C4", size=4), scales=1, blocks=1, width=2)
        >>> report = image_report(flow, torch.randn(6, 1, 4, 4), GrayLevels(17))
        >>> report.invariance_group, report.invariance_error < 1e-12
        ('C4', True)
    """
    action = flow.action if action is None else action
    images = as_events(images, flow, source="images")
    model = flow if dequantizer is None else DequantizedFlow(flow, dequantizer)
    pixels = math.prod(flow.action.event_shape)

    def bits(log_prob: Tensor) -> float:
        nats = -float(log_prob.double().mean())
        return nats / pixels / math.log(2) if dequantizer else scaling.bits_per_dim(nats, pixels=pixels)

    group = symmetrized = weighted = None
    with random_state_kept(images.device, seed=seed):
        own = bits(log_probs(model, images))
        turned = action if action.is_finite else flow.action
        if turned.group.order <= ALL_UP_TO:
            exact = torch.stack([element for element in turned.elements() if turned.is_exact(element)])
            poses = group_log_probs(model, images, turned, elements=exact).double()
            group, symmetrized = bits(poses), bits(torch.logsumexp(poses, 0) - math.log(len(poses)))
        if isinstance(model, DequantizedFlow):
            with evaluating(model):
                weighted = bits(model.importance_bound(images, draws=draws))
    error = log_det_error(model, images)
    invariance = invariance_report(flow, images, action, generator=torch.Generator().manual_seed(seed))
    return ImageReport(
        bits_per_dim=own,
        group_bits_per_dim=group,
        symmetrized_bits_per_dim=symmetrized,
        importance_bits_per_dim=weighted,
        importance_draws=draws if dequantizer else None,
        invariance_error=invariance.worst,
        mean_invariance_error=invariance.mean,
        invariance_group=str(action.group),
        parameters=sum(p.numel() for p in flow.parameters() if p.requires_grad),
        seconds_per_step=result.seconds / result.steps if result and result.steps else None,
        log_det_standard_error=error.standard_error,
        log_det_bits_standard_error=error.standard_error / pixels / math.log(2),
        log_det_truncation=error.truncation,
    )
