"""IntoDomain: the map from coordinates of gaps and free coordinates to the events in canonical form."""

from __future__ import annotations

import math

import numpy as np
import scipy.linalg
import torch
from torch import Tensor, nn

from pyro_gflows.actions import VectorAction
from pyro_gflows.flows.domains.base import FundamentalDomain
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.numerics.truncated_gap import coordinate_of_gap, gap_log_slope, gap_of_coordinate
from pyro_gflows.transforms import EquivariantTransform

__all__ = ["IntoDomain"]

_SMALLEST_RATIO = 0.05


class IntoDomain(EquivariantTransform):
    r"""The bijection from R^N to the events whose keys lie in a fundamental domain.

    Each of the first coordinates becomes a gap to a wall, as the quantile of the normal distribution of mean m and
    standard deviation s that is truncated at 0; m and s are learned. The gaps determine the keys, and the keys and the
    free coordinates, in an orthonormal basis of the events without keys, determine the event.

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
        self.log_mean = nn.Parameter(torch.zeros(domain.dimension))
        self.log_spread = nn.Parameter(torch.full((domain.dimension,), math.log(0.5)))

    @torch.no_grad()
    def read_by(self, keys_of: Tensor) -> None:
        """Take other keys.

        Args:
            keys_of: The map from events to keys, shape ``(size, N)``.
        """
        self.keys_of.value.copy_(keys_of)
        self.free.value.copy_(_without_keys(keys_of, len(self.free.value)))

    @torch.no_grad()
    def place(self, mean: Tensor, spread: Tensor) -> Tensor:
        """Set the mean and the standard deviation of each gap.

        Args:
            mean: The means m; those below 0.05 s are set to it.
            spread: The standard deviations s.

        Returns:
            The ratios m / s.
        """
        mean = torch.maximum(mean, _SMALLEST_RATIO * spread)
        self.log_mean.copy_(mean.log())
        self.log_spread.copy_(spread.log())
        return mean / spread

    @property
    def ratio(self) -> Tensor:
        """The ratio m / s of each gap."""
        return (self.log_mean - self.log_spread).exp()

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
        u, free = x.tensor_split([self.gap_domain.dimension], -1)
        gap = gap_of_coordinate(u, self.ratio)
        event = self.event(torch.cat([gap * self.log_spread.exp(), free], -1))
        return event, self._ladj(u, gap)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        gap, free = self.coordinates(y).tensor_split([self.gap_domain.dimension], -1)
        gap = gap.clamp_min(0) / self.log_spread.exp()
        u = coordinate_of_gap(gap, self.ratio)
        return torch.cat([u, free], -1), -self._ladj(u, gap)

    def _ladj(self, u: Tensor, gap: Tensor) -> Tensor:
        return (gap_log_slope(u, gap, self.ratio) + self.log_spread).sum(-1) + self.gap_domain.log_det


def _without_keys(keys_of: Tensor, count: int) -> Tensor:
    """Orthonormal rows that span the events whose keys are 0, made from coordinate axes where possible."""
    projection = np.eye(keys_of.shape[1]) - (keys_of.T @ keys_of).cpu().numpy()
    basis = scipy.linalg.qr(projection, pivoting=True)[0][:, :count]
    return torch.from_numpy(basis.T.copy()).to(keys_of)
