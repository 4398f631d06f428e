"""Flows of sets of different sizes as training sees them: with masks beside the events, or for one mask."""

from __future__ import annotations

import pyro
import torch
from torch import Tensor, nn

from pyro_gflows.actions import Action, RowsAction
from pyro_gflows.actions.row_mask import check_mask, require_maskable
from pyro_gflows.flows.distribution import FlowDistribution
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.variational import VariationalFlow
from pyro_gflows.groups.representations import TrivialRepresentation
from pyro_gflows.groups.row_fields import RowField

__all__ = ["FlowOfMask", "FlowWithMasks"]


class FlowWithMasks(VariationalFlow):
    """The density of events (x, mask), with the mask as zeros and ones after x, as a flow gives it for every mask.

    The group permutes the entries of the mask as it permutes the rows, so that (x, mask) is an event like others, which
    batches, loaders and checkpoints carry without knowing of masks. The masks themselves are given, and not modeled.

    Args:
        flow: The flow of x, which takes masks.

    Raises:
        TypeError: Events do not consist of rows.
        ValueError: The rows are in several blocks, or some of their features are not free.

    Example:
        >>> from pyro_gflows import InvariantNormal, g_coupling
        >>> action = RowsAction(3, 2)
        >>> flow = FlowWithMasks(EquivariantFlow(InvariantNormal(action), [g_coupling(action)]))
        >>> flow.action
        RowsAction(S3 on R^9: rows of 2 + rows)
        >>> flow(flow.join(torch.zeros(5, 6), torch.ones(5, 3, dtype=torch.bool))).shape
        torch.Size([5])
    """

    def __init__(self, flow: EquivariantFlow) -> None:
        super().__init__()
        self.flow = flow
        action = require_maskable(flow.action)
        (self._rows,) = action.layout.sizes
        presence = RowField(action.structure, [TrivialRepresentation(action.structure.inner)])
        self._action = action.direct_sum(RowsAction([presence]))

    @property
    def action(self) -> Action:
        return self._action

    def join(self, x: Tensor, mask: Tensor) -> Tensor:
        """The events (x, mask).

        Args:
            x: Events of the flow.
            mask: Which rows are there, boolean, shape ``batch_shape + (n,)``.

        Raises:
            ValueError: There are not as many masks as events.
        """
        self.flow.action.check_event(x)
        check_mask(self.flow.action, mask)
        if mask.shape[:-1] != x.shape[:-1]:
            raise ValueError(
                f"expected one mask for each event, of shape {(*x.shape[:-1], self._rows)}, got {tuple(mask.shape)}"
            )
        return torch.cat([x, mask.to(x)], -1)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The events of the flow, and the masks.

        Args:
            x: Events (x, mask).
        """
        return x[..., : -self._rows], x[..., -self._rows :] > 0.5

    def initialize(self, x: Tensor) -> None:
        events, mask = self.parts(x)
        self.flow.initialize(events, mask=mask)

    def forward(self, x: Tensor) -> Tensor:
        """The log-density of the rows that are there."""
        events, mask = self.parts(x)
        scores: Tensor = self.flow(events, mask=mask)
        return scores

    def model(self, x: Tensor) -> None:
        events, mask = self.parts(x)
        pyro.module("flow", self.flow)
        with pyro.plate("data", len(x)):
            pyro.sample("x", self.flow.condition(mask=mask), obs=events)

    def guide(self, x: Tensor) -> None:
        pass


class FlowOfMask(nn.Module):
    """The density of a flow for one mask, as a module with a ``dist``, for fits to energies.

    Args:
        flow: The flow, which takes masks.
        mask: Which rows are there, boolean, shape ``(n,)``.

    Raises:
        TypeError: As for ``flow.condition``.
        ValueError: The mask is a batch of masks, or as for ``flow.condition``.

    Example:
        >>> from pyro_gflows import InvariantNormal, g_coupling
        >>> action = RowsAction(3, 2)
        >>> flow = EquivariantFlow(InvariantNormal(action), [g_coupling(action)])
        >>> FlowOfMask(flow, torch.tensor([True, True, False])).dist.sample()[4:]
        tensor([0., 0.])
    """

    mask: Tensor

    def __init__(self, flow: EquivariantFlow, mask: Tensor) -> None:
        super().__init__()
        check_mask(flow.action, mask)
        if mask.ndim != 1:
            raise ValueError(f"expected one mask, of shape ({mask.shape[-1]},), got a batch of shape {mask.shape[:-1]}")
        self.flow = flow
        self.register_buffer("mask", mask, persistent=False)

    @property
    def dist(self) -> FlowDistribution:
        """The density of the rows that are there."""
        return self.flow.condition(mask=self.mask)
