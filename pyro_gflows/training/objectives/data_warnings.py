"""Warnings about data that a likelihood cannot be trusted on: off the support of a density, or against the symmetry."""

from __future__ import annotations

from typing import Any

from pyro_gflows.datasets.rows import is_stored
from pyro_gflows.datasets.support import spread_rows, warn_off_support
from pyro_gflows.datasets.symmetry import warn_of_contradictions
from pyro_gflows.flows.dequantization import DequantizedFlow
from pyro_gflows.flows.with_masks import FlowWithMasks
from pyro_gflows.spaces import require_inside
from pyro_gflows.training.augmentation import Augmentation
from pyro_gflows.training.settings import FitSettings

__all__ = ["has_other_coordinates", "is_seen_as_stored", "warn_of_data"]


def warn_of_data(flow: Any, data: Any, *, augment: Augmentation | None, settings: FitSettings) -> None:
    """Warns about problems of stored data before the first step; other data are checked in the first batch.

    Padding that comes last in every event is not symmetric, so events with masks are not compared with the symmetry.

    Args:
        flow: The flow that is to be fitted.
        data: The rows, the loader or the sampler of the events.
        augment: What is applied to every batch, which may make the data symmetric.
        settings: The settings of the run.

    Raises:
        ValueError: Events lie outside the space of the flow, as particles whose center of mass is not 0 do.
    """
    if is_seen_as_stored(flow, data, augment) and is_stored(data):
        like = next(flow.parameters())
        spread = spread_rows(data, flow.action).to(like)
        # a large file may hold others, which the batch with them will report
        require_inside(flow.action.space, spread[spread.flatten(1).isfinite().all(1)])
        warn_off_support(spread, flow.action)
    if settings.check_symmetry and augment is None and not isinstance(flow, FlowWithMasks) and is_stored(data):
        warn_of_contradictions(flow.action, data, seed=settings.seed)


def is_seen_as_stored(flow: Any, data: Any, augment: Augmentation | None) -> bool:
    """Whether the flow is trained on the stored events themselves, without augmentation or new noise.

    Args:
        flow: The flow.
        data: The rows, the loader or the sampler.
        augment: What is applied to every batch.
    """
    return is_stored(data) and augment is None and not has_other_coordinates(flow)


def has_other_coordinates(flow: Any) -> bool:
    """Whether the flow's own coordinates differ from those of the data: by noise, or by a mask beside the rows.

    Args:
        flow: The flow.
    """
    return isinstance(flow, DequantizedFlow | FlowWithMasks)
