"""Forward divergences beside the reverse one, so that modes are found and kept."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Distribution

from pyro_gflows.datasets.checks import check_data
from pyro_gflows.targets import LogDensity
from pyro_gflows.training.identity import fingerprint, values_at
from pyro_gflows.training.settings import Ramp, Schedule

__all__ = ["AlphaMixing", "ForwardKL", "Mixing"]


class Mixing(Protocol):
    """Makes a second loss, which counts ``weight(done)`` to the reverse divergence's ``1 - weight(done)``."""

    @property
    def weight(self) -> Schedule: ...

    def loss(self, distribution: Distribution, log_density: LogDensity, draws: int) -> Tensor:
        """The loss over ``draws`` events, in nats an event; random numbers come from torch's own generators."""


@dataclass(frozen=True)
class ForwardKL:
    r"""Adds the likelihood of given samples of the target, :math:`-E_p \log q(x)`.

    Args:
        samples: shape ``(n, *event_shape)``, a tensor or an array; ``draws`` of them, with replacement, at every step.
        weight: the share of this loss, when a fraction of the run is over; by default it falls from 1/2 to 0 at 80%, so
            that the end is free of its noise.
    """

    samples: Any = field(repr=False)
    weight: Schedule = field(default_factory=lambda: Ramp(start=0.5, end=0.0, until=0.8))

    def __post_init__(self) -> None:
        if isinstance(self.samples, np.ndarray) and self.samples.ndim >= 2 and len(self.samples):
            object.__setattr__(self, "samples", check_data(self.samples, source="samples"))
        if not isinstance(self.samples, Tensor) or self.samples.ndim < 2 or len(self.samples) == 0:
            raise TypeError(f"expected samples as a tensor of shape (n, *event_shape), got {_kind(self.samples)}")

    def loss(self, distribution: Distribution, log_density: LogDensity, draws: int) -> Tensor:
        rows = torch.randint(len(self.samples), (draws,))
        return -distribution.log_prob(self.samples[rows.to(self.samples.device)]).mean()

    def __repr__(self) -> str:
        return f"ForwardKL({fingerprint(self.samples)}, weight={self.weight})"


@dataclass(frozen=True)
class AlphaMixing:
    r"""Adds a forward divergence estimated by importance sampling from q and a broad proposal r, half each.

    .. math:: -\sum_i \bar w_i \log q(x_i), \qquad x_i \sim m = \tfrac12 (q + r), \quad
        \bar w_i \propto (p(x_i) / m(x_i))^\alpha

    The weights are bounded where p / r is, and show q every mode that r reaches, which draws of q alone never do.

    Args:
        proposal: r, a distribution of events without batch shape; broad enough to reach every mode.
        alpha: 1 is the forward Kullback-Leibler divergence; less evens the weights out: a little bias for less noise.
        weight: as for :class:`ForwardKL`.

    Source: Importance-weighted forward divergences in flow annealed bootstrap, arXiv:2208.01893; defensive mixtures,
    Hesterberg (1995).
    """

    proposal: Distribution
    alpha: float = 1.0
    weight: Schedule = field(default_factory=lambda: Ramp(start=0.5, end=0.0, until=0.8))

    def __post_init__(self) -> None:
        if not isinstance(self.proposal, Distribution):
            raise TypeError(f"expected a distribution as proposal, got {_kind(self.proposal)}")
        if not 0 < self.alpha <= 1:
            raise ValueError(f"expected alpha in (0, 1], got {self.alpha}")

    def loss(self, distribution: Distribution, log_density: LogDensity, draws: int) -> Tensor:
        with torch.no_grad():
            own = distribution.sample(torch.Size([draws - draws // 2]))
            foreign = self.proposal.sample(torch.Size([draws // 2]))
            x = torch.cat([own, foreign.to(own)])
        log_q = distribution.log_prob(x)
        with torch.no_grad():
            log_m = torch.logaddexp(log_q, self.proposal.log_prob(x.to(foreign)).to(log_q)) - math.log(2)
            weights = torch.softmax(self.alpha * (log_density(x) - log_m), 0)
        return -(weights * log_q).sum()

    def identity(self, event_shape: torch.Size, like: Tensor) -> dict[str, Any] | None:
        """Values of the proposal's log-density, whose repr need not show its parameters."""
        return values_at(lambda x: self.proposal.log_prob(x), event_shape, like, name="the proposal")


def _kind(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
