"""One report of all figures of an image flow on test images."""

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
from pyro_gflows.datasets.scaling import GrayLevels
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.evaluation.estimation_error import log_det_error
from pyro_gflows.evaluation.invariance import ALL_UP_TO, invariance_report
from pyro_gflows.evaluation.scores import group_log_probs, log_probs
from pyro_gflows.flows.dequantization import DequantizedFlow, VariationalDequantizer
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn.modes import evaluating
from pyro_gflows.numerics.random_state import random_state_kept

if TYPE_CHECKING:
    from pyro_gflows.training import FitResult

__all__ = ["ImageReport", "image_report"]


@dataclass(frozen=True)
class ImageReport:
    r"""The result of :func:`image_report`: bits per dimension, invariance error, size and speed of an image flow.

    If all log-dets are exact, all bits per dimension are upper bounds on the code length of a pixel's gray level. If
    layers estimate them, as large residual layers do, all bits share the error in the last three attributes and may be
    too low by this error.

    Attributes:
        bits_per_dim: Bits per dimension of the images as they are, from uniform noise or a dequantizer's ELBO.
        group_bits_per_dim: The same, averaged over the image's poses under all elements that map pixels onto pixels;
            None if the group has more than 1024 elements.
        symmetrized_bits_per_dim: Bits per dimension of the flow averaged over these poses at test time, which costs one
            evaluation for each pose. With a dequantizer each pose has its own noise, which tightens the bound.
        importance_bits_per_dim: Bits per dimension by the importance-weighted bound; None without a dequantizer.
        importance_draws: The number of draws in the importance-weighted bound; None without a dequantizer.
        invariance_error: The largest value of :math:`|\log p(g x) - \log p(x)| / \max(1, |\log p(x)|)`, in float64.
        mean_invariance_error: The mean of the same values.
        invariance_group: The name of the group with the elements g.
        parameters: The number of trainable weights of the flow.
        seconds_per_step: The duration of a training step; None without a FitResult.
        log_det_standard_error: The standard error, in nats, of the mean log-density due to estimated log-dets; 0 if all
            are exact. All images share it, so more images do not reduce it.
        log_det_bits_standard_error: The same in bits per dimension.
        log_det_truncation: A bound, in nats for each image, on the additional error from cutting the power series or
            Krylov spaces of the log-dets.

    Example:
        >>> report = ImageReport(
        ...     bits_per_dim=1.25, group_bits_per_dim=1.25, symmetrized_bits_per_dim=1.25, importance_bits_per_dim=None,
        ...     importance_draws=None, invariance_error=2e-15, mean_invariance_error=1e-15, invariance_group="C4",
        ...     parameters=1000, seconds_per_step=None,
        ... )
        >>> "seconds_per_step" in report.known(), report.known()["parameters"]
        (False, 1000)
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
        """Returns all figures other than None by name, for a JSON file."""
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
    """Measures a flow on test images: bits per dimension, invariance, size and speed.

    Args:
        flow: The flow of the scaled images.
        images: Dequantized and scaled images, shape ``(rows,) + event_shape``.
        scaling: The scaling of the images.
        action: The action whose invariance is measured, and over whose group the bits per dimension are averaged; by
            default the flow's own action. If the action interpolates between pixels, the average is over the elements
            that map pixels onto pixels. If its group is infinite, the average is over the flow's own group.
        dequantizer: The dequantizer that draws the noise; if None, the images are scored with the noise that they have.
        draws: The number of draws in the importance-weighted bound, which needs a dequantizer.
        result: The return value of ``fit``, for the duration of a training step.
        seed: The seed of all random draws; the global random state stays unchanged.

    Raises:
        TypeError: ``scaling`` is not a GrayLevels.

    Example:
        >>> from pyro_gflows import ImageAction, g_coupling_image_flow
        >>> from pyro_gflows.datasets import GrayLevels
        >>> flow = g_coupling_image_flow(ImageAction("C4", size=4), scales=1, blocks=1, width=2)
        >>> report = image_report(flow, torch.randn(6, 1, 4, 4), GrayLevels(17))
        >>> report.invariance_group, report.invariance_error < 1e-12
        ('C4', True)
    """
    if not isinstance(scaling, GrayLevels):
        raise TypeError(f"expected the scaling of the images, such as GrayLevels(17), got {scaling!r}")
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
        averaged = action if action.is_finite else flow.action
        if averaged.group.order <= ALL_UP_TO:
            exact = torch.stack([element for element in averaged.elements() if averaged.is_exact(element)])
            poses = group_log_probs(model, images, averaged, elements=exact).double()
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
