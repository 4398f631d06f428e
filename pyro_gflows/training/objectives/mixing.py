"""Forward divergences that are mixed with the reverse divergence, so that modes are found and kept."""

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
    """A second loss for :func:`fit_energy`; :class:`ForwardKL` and :class:`AlphaMixing` are such losses.

    The total loss is ``(1 - w) * reverse divergence + w * loss`` with ``w = weight(done)``, where ``done`` is the
    fraction of the run that is over.

    Example:
        >>> def total(mixing: Mixing, done: float) -> float:
        ...     return 1 - mixing.weight(done)
        >>> total(ForwardKL(torch.zeros(5, 2)), 0.8)  # the share of the reverse divergence after 80% of the run
        1.0
    """

    @property
    def weight(self) -> Schedule:
        """The share of this loss as a schedule."""
        ...

    def loss(self, distribution: Distribution, log_density: LogDensity, draws: int) -> Tensor:
        """Returns the loss over ``draws`` events, in nats per event; it draws from torch's global generators.

        Args:
            distribution: The density that is fitted.
            log_density: The log of the unnormalized target density.
            draws: The number of events.
        """


@dataclass(frozen=True)
class ForwardKL:
    r"""The negative log-likelihood of samples of the target, :math:`-E_p \log q(x)`, as a second loss.

    The reverse divergence alone may lose modes of the target. Samples of the target, even a few from a long simulation,
    show the fit where the modes are.

    Args:
        samples: Samples of the target, shape ``(n, *event_shape)``, as a tensor or an array. Each step uses a random
            batch of them, with replacement.
        weight: The share of this loss as a schedule; by default it falls from 1/2 to 0 at 80% of the run, so that the
            end of the run is free of its noise.

    Raises:
        TypeError: The samples are not a tensor or an array of shape ``(n, *event_shape)``.

    Example:
        >>> from pyro_gflows import EquivariantFlow, FitSettings, GActNorm, InvariantNormal, VectorAction, fit_energy
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> report = fit_energy(
        ...     flow, lambda x: -x.square().sum(-1), mixing=ForwardKL(torch.randn(100, 2) / 2**0.5),
        ...     settings=FitSettings(steps=3), progress=False,
        ... )
        >>> report.run.steps
        3
    """

    samples: Any = field(repr=False)
    weight: Schedule = field(default_factory=lambda: Ramp(start=0.5, end=0.0, until=0.8))

    def __post_init__(self) -> None:
        if isinstance(self.samples, np.ndarray) and self.samples.ndim >= 2 and len(self.samples):
            object.__setattr__(self, "samples", check_data(self.samples, source="samples"))
        if not isinstance(self.samples, Tensor) or self.samples.ndim < 2 or len(self.samples) == 0:
            raise TypeError(f"expected samples as a tensor of shape (n, *event_shape), got {_kind(self.samples)}")

    def loss(self, distribution: Distribution, log_density: LogDensity, draws: int) -> Tensor:
        """Returns the mean of -log q over a random batch of the samples, in nats per event.

        Args:
            distribution: The density q that is fitted.
            log_density: Not used.
            draws: The size of the batch.
        """
        rows = torch.randint(len(self.samples), (draws,))
        return -distribution.log_prob(self.samples[rows.to(self.samples.device)]).mean()

    def __repr__(self) -> str:
        return f"ForwardKL({fingerprint(self.samples)}, weight={self.weight})"


@dataclass(frozen=True)
class AlphaMixing:
    r"""A forward divergence, estimated by importance sampling from the fit and a broad proposal, as a second loss.

    Use it if the target has several modes and no samples of it are available. Half of the draws come from the fitted
    density q and half from a broad proposal r, so the fit is shown every mode that r reaches, which draws of q alone
    cannot do. The loss is

    .. math:: -\sum_i \bar w_i \log q(x_i), \qquad x_i \sim m = \tfrac12 (q + r), \quad
        \bar w_i \propto (p(x_i) / m(x_i))^\alpha

    with weights that sum to 1 and are bounded if p / r is bounded.

    Args:
        proposal: The proposal r: a distribution of events without batch shape that is broad enough to reach every mode.
        alpha: The power of the weights, in (0, 1]. With 1 the loss estimates the forward Kullback-Leibler divergence; a
            smaller power makes the weights more even, which adds a little bias and reduces noise.
        weight: The share of this loss as a schedule, as for :class:`ForwardKL`.

    Raises:
        TypeError: The proposal is not a distribution.
        ValueError: ``alpha`` is outside (0, 1].

    Source: Importance-weighted forward divergences in flow annealed bootstrap, arXiv:2208.01893; defensive mixtures,
    Hesterberg (1995).

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gflows import EquivariantFlow, FitSettings, GActNorm, InvariantNormal, VectorAction, fit_energy
        >>> action = VectorAction.plane("C4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> report = fit_energy(
        ...     flow, lambda x: -x.square().sum(-1), mixing=AlphaMixing(dist.Normal(torch.zeros(2), 3.0).to_event(1)),
        ...     settings=FitSettings(steps=3), progress=False,
        ... )
        >>> report.run.steps
        3
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
        """Returns the weighted mean of -log q over fresh draws, in nats per event.

        Args:
            distribution: The density q that is fitted.
            log_density: The log of the unnormalized target density p.
            draws: The number of draws, half of them from the proposal.
        """
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
        """Returns values of the proposal's log-density, by which a resumed run recognizes the same proposal.

        Args:
            event_shape: The shape of an event.
            like: A tensor of the dtype and device of the events.
        """
        return values_at(lambda x: self.proposal.log_prob(x), event_shape, like, name="the proposal")


def _kind(value: object) -> str:
    return f"shape {tuple(value.shape)}" if isinstance(value, Tensor) else type(value).__name__
