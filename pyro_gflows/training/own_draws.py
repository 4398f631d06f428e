"""OwnDraws: events of an unnormalized density, made of a flow's own draws by importance weights."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.flows.learnable import learnable
from pyro_gflows.nn.modes import evaluating
from pyro_gflows.targets import LogDensity, on_full_plates
from pyro_gflows.training.identity import name_of, values_at

__all__ = ["OwnDraws", "bearable_power"]


class OwnDraws:
    r"""A sampler for :func:`fit`: draws of the flow itself, drawn again by their importance weights.

    ``fit(flow, OwnDraws(flow, log_density))`` minimizes the forward divergence :math:`E_p[-\log q]`, knowing no more
    than the unnormalized log p. Every so often a pool is drawn from q as it is now; a batch is drawn from the pool with
    weights

    .. math:: w \propto (p / q)^\beta

    where :math:`\beta \le 1` is the largest power at which the effective sample size is still the fraction ``ess`` of
    the pool: far from p the flow is led there by tempered steps, and near it the weights are exact. log p is never
    differentiated, and may be -inf: hard edges, on which a reverse divergence is infinite, do no harm.

    The flow samples once a pool and scores at every step, so autoregressive layers want ``fast="score"``.

    Args:
        flow: what is being fitted, as for :func:`fit_energy`.
        log_density: maps events, shape ``(n, *event_shape)``, to log p up to a constant, shape ``(n,)``; -inf is no
            density.
        pool: draws in a pool.
        batches: batches from each pool.
        ess: the effective sample size, as a fraction of the pool, that the weights are tempered to.

    Raises:
        TypeError: neither flow nor distribution with a module.
        ValueError: ``pool``, ``batches`` or ``ess`` out of range; (when called) log-densities of another shape or NaN,
            or a pool in which no draw has any density.

    Source: sequential importance sampling with tempering, Del Moral et al. (2006); adaptive importance sampling by the
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
        self, flow: Any, log_density: LogDensity, *, pool: int = 10_000, batches: int = 50, ess: float = 0.3
    ) -> None:
        if pool < 2 or batches < 1 or not 0 < ess < 1:
            raise ValueError(f"expected pool >= 2, batches >= 1 and ess in (0, 1), got {pool}, {batches} and {ess}")
        # weights of draws that see different minibatches would compare the minibatches
        self._target, self._log_density = learnable(flow), on_full_plates(log_density)
        self.pool, self.batches, self.ess = pool, batches, ess
        self.power = 0.0
        """The power beta of the last pool; 0 before there is one."""
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
                f"expected log_density to map {tuple(x.shape)} to {self.pool} numbers, or -inf, got shape "
                f"{tuple(log_p.shape)}{' with NaN' if bool(log_p.isnan().any()) else ''}"
            )
        log_weights = (log_p - log_q).double().cpu()
        if not bool((log_weights > -math.inf).any()):
            raise ValueError(
                f"none of {self.pool} draws has any density under the target; begin with a wider base, or take a "
                "larger pool"
            )
        self.power = bearable_power(log_weights, self.ess)
        self._events = x
        # where -inf to the power 0 would be NaN
        self._weights = torch.where(log_weights > -math.inf, self.power * log_weights, -math.inf).softmax(0)

    def state(self) -> dict[str, Tensor]:
        """The pool and how much of it is used, for a checkpoint."""
        return {
            "events": self._events,
            "weights": self._weights,
            "power": torch.tensor(self.power, dtype=torch.float64),
            "used": torch.tensor(self._used),
        }

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take up what :meth:`state` gave."""
        self._events = state["events"].to(self._target.reference.device)
        self._weights = state["weights"].cpu()
        self.power, self._used = float(state["power"]), int(state["used"])

    def identity(self) -> dict[str, Any]:
        """What must be the same for a resumed run: the log-density, by its name and its values at a few points."""
        shape, like = self._target.distribution.event_shape, self._target.reference
        values = values_at(self._log_density, shape, like, name="the log-density")
        return {"log_density": name_of(self._log_density), **({} if values is None else {"at": values})}

    def __repr__(self) -> str:
        return f"OwnDraws(pool={self.pool}, batches={self.batches}, ess={self.ess})"


def bearable_power(log_weights: Tensor, ess: float) -> float:
    r"""The largest :math:`\beta \le 1` at which the weights :math:`w^\beta` have an effective sample size of ``ess`` n.

    Where no more than that many weights are above 0, no power helps; then it is the one for half of those.

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
