"""OwnDraws: approximate samples of an unnormalized density, from a flow's own draws with importance weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.flows.learnable import learnable
from pyro_gflows.nn.modes import evaluating
from pyro_gflows.targets import Density, LogDensity, log_density_of, on_full_plates
from pyro_gflows.training.identity import name_of, values_at

__all__ = ["OwnDraws", "bearable_power"]


class OwnDraws:
    r"""A sampler for :func:`fit` that fits a flow to an unnormalized density by the forward divergence.

    ``fit(flow, OwnDraws(flow, log_density))`` minimizes the forward divergence :math:`E_p[-\log q]` of the flow q from
    the target p, using only the unnormalized log p. In contrast to :func:`fit_energy`, log p need not be differentiable
    and may be -inf, so targets with hard edges are allowed, for which the reverse divergence is infinite.

    At regular intervals a pool of events is drawn from the current flow. Each batch is drawn from the pool with the
    importance weights

    .. math:: w \propto (p / q)^\beta

    where :math:`\beta \le 1` is the largest power at which the effective sample size is at least the fraction ``ess``
    of the pool. Far from p, a small power leads the flow toward p in steps; near p, the power is 1 and the weights are
    exact.

    The flow samples once for each pool but scores at every step, so build autoregressive layers with ``fast="score"``.

    Args:
        flow: The flow that is fitted, as for :func:`fit_energy`.
        log_density: A function from events, shape ``(n, *event_shape)``, to log p up to a constant, shape ``(n,)``;
            -inf stands for density 0; or a density with ``log_density``.
        pool: The number of draws in a pool.
        batches: The number of batches from each pool.
        ess: The smallest effective sample size of the weights, as a fraction of the pool.

    Raises:
        TypeError: ``flow`` is not a flow or a distribution with a module.
        ValueError: ``pool``, ``batches`` or ``ess`` is out of range. When called: the log-densities have the wrong
            shape or are NaN, or no draw in the pool has any density under the target.

    Source: Sequential importance sampling with tempering, Del Moral et al. (2006); adaptive importance sampling by the
    forward divergence, the cross-entropy method, de Boer et al. (2005).

    Example:
        >>> from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
        >>> from pyro_gflows.training.settings import FitSettings
        >>> from pyro_gflows.training.fitting import fit
        >>> action = VectorAction.plane("D4")
        >>> flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        >>> draws = OwnDraws(flow, lambda x: -x.square().sum(-1), pool=2000)
        >>> fit(flow, draws, settings=FitSettings(steps=3, batch_size=500), progress=False).steps, draws.power
        (3, 1.0)
    """

    def __init__(
        self, flow: Any, log_density: LogDensity | Density, *, pool: int = 10_000, batches: int = 50, ess: float = 0.3
    ) -> None:
        if pool < 2 or batches < 1 or not 0 < ess < 1:
            raise ValueError(f"expected pool >= 2, batches >= 1 and ess in (0, 1), got {pool}, {batches} and {ess}")
        # with a new minibatch for each call, the weights would compare minibatches and not draws
        self._target, self._log_density = learnable(flow), on_full_plates(log_density_of(log_density))
        self.pool, self.batches, self.ess = pool, batches, ess
        self.power = 0.0
        """The power beta of the last pool; 0 before the first one."""
        self._events, self._weights = torch.empty(0), torch.empty(0)
        self._used = 0

    def __call__(self, n: int, generator: torch.Generator) -> Tensor:
        if self._used % self.batches == 0:
            self._refresh()
        self._used += 1
        rows = torch.multinomial(self._weights, n, replacement=True, generator=generator)
        return self._events[rows.to(self._events.device)]

    @torch.no_grad()
    def _refresh(self) -> None:
        distribution = self._target.distribution
        with evaluating(self._target.module):
            x = distribution.sample(torch.Size([self.pool]))
            log_q = distribution.log_prob(x)
        log_p = self._log_density(x)
        if log_p.shape != (self.pool,) or bool(log_p.isnan().any()):
            raise ValueError(
                f"expected log_density to map shape {tuple(x.shape)} to shape ({self.pool},), finite or -inf, got "
                f"shape {tuple(log_p.shape)}{' with NaN' if bool(log_p.isnan().any()) else ''}"
            )
        log_weights = (log_p - log_q).double().cpu()
        if not bool((log_weights > -math.inf).any()):
            raise ValueError(
                f"expected draws with some density under the target, but none of {self.pool} draws has any; start "
                "with a wider base, or use a larger pool"
            )
        self.power = bearable_power(log_weights, self.ess)
        self._events = x
        # 0 * -inf would be NaN
        self._weights = torch.where(log_weights > -math.inf, self.power * log_weights, -math.inf).softmax(0)

    def state(self) -> dict[str, Tensor]:
        """Returns the pool and the number of batches drawn from it, for a checkpoint."""
        return {
            "events": self._events,
            "weights": self._weights,
            "power": torch.tensor(self.power, dtype=torch.float64),
            "used": torch.tensor(self._used),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Restores the pool.

        Args:
            state: The tensors of :meth:`state`, by name.
        """
        self._events = state["events"].to(self._target.reference.device)
        self._weights = state["weights"].cpu()
        self.power, self._used = float(state["power"]), int(state["used"])

    def identity(self) -> dict[str, Any]:
        """Returns the name of the log-density and its values at a few points, which a resumed run must share."""
        shape, like = self._target.distribution.event_shape, self._target.reference
        values = values_at(self._log_density, shape, like, name="the log-density")
        return {"log_density": name_of(self._log_density), **({} if values is None else {"at": values})}

    def __repr__(self) -> str:
        return f"OwnDraws(pool={self.pool}, batches={self.batches}, ess={self.ess})"


def bearable_power(log_weights: Tensor, ess: float) -> float:
    r"""The largest power :math:`\beta \le 1` at which :math:`w^\beta` has a large enough effective sample size.

    If too few weights are above 0, no power reaches the size; the result is then the power at which it is about half
    the number of these weights.

    Args:
        log_weights: The log-weights log w, shape ``(n,)``.
        ess: The smallest effective sample size as a fraction of n.

    Example:
        >>> bearable_power(torch.zeros(10), 0.5)
        1.0
        >>> round(bearable_power(torch.tensor([0.0, 1e3]), 0.6), 5)
        0.00229
    """
    logs = log_weights[log_weights > -math.inf]
    goal = min(ess * len(log_weights), 0.5 * len(logs) + 0.5)

    def effective(power: float) -> float:
        return 1.0 / float((power * logs).softmax(0).square().sum())

    if effective(1.0) >= goal:
        return 1.0
    low, high = 0.0, 1.0
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= goal else (low, middle)
    return low
