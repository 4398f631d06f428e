"""IntoDomain: the map from gaps and free coordinates to the events in canonical form."""

from __future__ import annotations

import numpy as np
import scipy.linalg
import torch
from torch import Tensor

from pyro_gflows.actions import VectorAction
from pyro_gflows.flows.domains.base import FundamentalDomain
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["IntoDomain"]


class IntoDomain(EquivariantTransform):
    """The linear map from gaps and free coordinates to events, in canonical form where the gaps are positive.

    The gaps determine the keys, and the keys and the free coordinates, in an orthonormal basis of the events without
    keys, determine the event.

    Args:
        action: The action of the trivial group on events.
        domain: The domain.
        keys_of: The map from events to keys, shape ``(size, N)``.
    """

    def __init__(self, action: VectorAction, domain: FundamentalDomain, keys_of: Tensor) -> None:
        super().__init__(action)
        self.gap_domain = domain
        self.keys_of = FixedBasis(keys_of)
        self.free = FixedBasis(_without_keys(keys_of, action.numel - domain.dimension))

    @torch.no_grad()
    def read_by(self, keys_of: Tensor) -> None:
        """Take other keys.

        Args:
            keys_of: The map from events to keys, shape ``(size, N)``.
        """
        self.keys_of.value.copy_(keys_of)
        self.free.value.copy_(_without_keys(keys_of, len(self.free.value)))

    def coordinates(self, x: Tensor) -> Tensor:
        """The gaps and the free coordinates of events in canonical form.

        Args:
            x: Events, shape ``batch + (N,)``.
        """
        return torch.cat([self.gap_domain.gaps(x @ self.keys_of(x).T), x @ self.free(x).T], -1)

    def event(self, coordinates: Tensor) -> Tensor:
        """The events with these gaps and free coordinates.

        Args:
            coordinates: Shape ``batch + (N,)``.
        """
        gaps, free = coordinates.tensor_split([self.gap_domain.dimension], -1)
        return self.gap_domain.keys(gaps) @ self.keys_of(gaps) + free @ self.free(free)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.event(x), x.new_full(x.shape[:-1], self.gap_domain.log_det)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self.coordinates(y), y.new_full(y.shape[:-1], -self.gap_domain.log_det)


def _without_keys(keys_of: Tensor, count: int) -> Tensor:
    """Orthonormal rows that span the events whose keys are 0, made from coordinate axes where possible."""
    projection = np.eye(keys_of.shape[1]) - (keys_of.T @ keys_of).cpu().numpy()
    basis = scipy.linalg.qr(projection, pivoting=True)[0][:, :count]
    return torch.from_numpy(basis.T.copy()).to(keys_of)
