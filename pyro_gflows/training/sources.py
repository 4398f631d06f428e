"""Where the batches of a fit come from: stored rows, a loader, a sampler, or events with masks, with their checks."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pyro_gflows.actions.row_mask import pad_rows
from pyro_gflows.datasets.checks import check_rows
from pyro_gflows.datasets.rows import Rows, TensorRows, as_rows
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.variational import VariationalFlow
from pyro_gflows.flows.with_masks import FlowWithMasks
from pyro_gflows.training.batches import Sampler, hidden_state
from pyro_gflows.training.settings import FitSettings

__all__ = ["masked_events", "rows_of", "sampler_identity", "source_of"]


def masked_events(flow: FlowWithMasks, data: Any, mask: Tensor | None) -> Tensor:
    """The events (x, mask) of a list of sets, or of padded events and their mask.

    Args:
        flow: The flow of events with masks that is to be fitted.
        data: The list of sets, or padded events.
        mask: Which rows of padded events are there.

    Raises:
        ValueError: A list of sets has a mask.
        TypeError: The data are neither of these.
    """
    if isinstance(data, list | tuple):
        if mask is not None:
            raise ValueError("expected a list of sets, or padded events with mask=, got a list and a mask")
        return flow.join(*pad_rows(flow.flow.action, data))
    if mask is None or not isinstance(data, Tensor):
        raise TypeError(
            f"expected {'a list of sets' if mask is None else 'padded events as a tensor'} where events have a mask, "
            f"got {type(data).__name__}"
        )
    return flow.join(data, mask)


def source_of(data: Any, flow: EquivariantFlow | VariationalFlow, like: Tensor) -> Rows | DataLoader[Any] | Sampler:
    """The rows, the loader or the sampler that the batches come from.

    Args:
        data: The data, as for :func:`fit`.
        flow: The flow that is to be fitted.
        like: A tensor of its dtype and device.
    """
    if isinstance(data, DataLoader) or (callable(data) and not isinstance(data, Dataset)):
        return data
    return rows_of(data, flow, like, source="data")


def rows_of(data: Any, flow: EquivariantFlow | VariationalFlow, like: Tensor, *, source: str) -> Rows:
    """The rows of stored data, after a check of their shape and values.

    Args:
        data: The events.
        flow: The flow that is to be fitted.
        like: A tensor of its dtype and device.
        source: How the error messages call the events.
    """
    rows = check_rows(
        as_rows(data, source=source), event_shape=flow.action.event_shape, source=source, dtype=like.dtype
    )
    if isinstance(rows, TensorRows) and rows.data.device != like.device:
        return TensorRows(rows.data.to(like))  # another device needs a copy in any case
    return rows


def sampler_identity(sampler: Any, settings: FitSettings, device: torch.device, *, resume: bool) -> dict[str, Any]:
    """The identity of a sampler, such as the target of ``OwnDraws``, after a check that its run can be resumed.

    Args:
        sampler: The sampler; rows and loaders have none.
        settings: The settings of the run.
        device: The device of the weights.
        resume: Whether the run goes on from a checkpoint.

    Raises:
        ValueError: The run is to be resumed, and the sampler has a state that no checkpoint holds.
    """
    if isinstance(sampler, DataLoader) or not callable(sampler):
        return {}
    problem = hidden_state(sampler, settings.batch_size, device)
    if problem is not None and resume:
        raise ValueError(f"cannot resume: {problem}")
    if problem is not None:
        warnings.warn(f"this run cannot be resumed: {problem}", stacklevel=5)
    identity = getattr(sampler, "identity", None)
    return {"sampler": identity()} if callable(identity) else {}
