"""Long-run samplers for references: many Hamiltonian chains at once, and sequential Monte Carlo over a likelihood."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor

__all__ = ["Chains", "Particles", "State", "chains", "move", "start", "tempered", "worst_r_hat"]

LogDensity = Callable[[Tensor], Tensor]

_ACCEPTED = 0.8  # the rate at which step sizes aim


@dataclass(frozen=True)
class State:
    """Where the chains are, with the log-density there and its gradient."""

    z: Tensor
    value: Tensor
    slope: Tensor


def start(log_density: LogDensity, z: Tensor) -> State:
    """The state at points of shape ``(chains, d)``."""
    z = z.detach().requires_grad_()
    with torch.enable_grad():
        value = log_density(z)
        (slope,) = torch.autograd.grad(value.sum(), z)
    return State(z.detach(), value.detach(), slope.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0))


def move(
    log_density: LogDensity, state: State, *, factor: Tensor, size: Tensor | float, leaps: int
) -> tuple[State, Tensor]:
    """One Hamiltonian move of every chain: ``leaps`` leapfrog steps, then accepted or refused.

    Args:
        log_density: The target, up to a constant.
        state: Where the chains are.
        factor: A lower triangular factor of the covariance by which directions are scaled, shape (d, d), or standard
            deviations of the coordinates, shape (d,).
        size: Step size, in units of the factor, for all chains or of shape ``(chains, 1)``.
        leaps: Leapfrog steps.

    Returns:
        The new state, and the probability of acceptance of each chain, shape ``(chains,)``.
    """
    flat = factor.ndim == 1

    def position(p: Tensor) -> Tensor:
        return p * factor if flat else p @ factor.T

    def force(slope: Tensor) -> Tensor:
        return slope * factor if flat else slope @ factor

    momentum = torch.randn_like(state.z)
    energy = state.value - 0.5 * momentum.square().sum(-1)
    momentum, at = momentum + 0.5 * size * force(state.slope), state
    for leap in range(leaps):
        at = start(log_density, at.z + size * position(momentum))
        momentum = momentum + (0.5 if leap == leaps - 1 else 1.0) * size * force(at.slope)
    gain = (at.value - 0.5 * momentum.square().sum(-1) - energy).nan_to_num(nan=-math.inf)
    kept = torch.rand_like(gain).log() < gain
    mixed = State(
        torch.where(kept[:, None], at.z, state.z),
        torch.where(kept, at.value, state.value),
        torch.where(kept[:, None], at.slope, state.slope),
    )
    return mixed, gain.clamp_max(0.0).exp()


@dataclass(frozen=True)
class Chains:
    """Draws of shape ``(chains, draws, d)``, and the mean rate of acceptance."""

    draws: Tensor
    acceptance: float


def chains(
    log_density: LogDensity, z: Tensor, *, warmup: int = 300, draws: int = 200, thin: int = 2, leaps: int = 16
) -> Chains:
    """Draws of many Hamiltonian chains that share a step size and a covariance, both fixed before the draws that count.

    The covariance is that of all chains in the second half of the first and of the second part of the warm-up, so the
    starts should lie in one mode (or in images of one mode that were carried on each other).

    Args:
        log_density: The target, up to a constant.
        z: Starts, shape ``(chains, d)``.
        warmup: Moves before the draws.
        draws: Draws of each chain.
        thin: Moves from each draw to the next.
        leaps: The largest number of leapfrog steps of a move; it is drawn from the upper half of 1, ..., ``leaps``.
    """
    state, factor, size = start(log_density, z), z.std(0).clamp_min(1e-3), 0.1
    parts = [warmup // 3, warmup // 3, warmup - 2 * (warmup // 3)]
    for part in parts:
        kept: list[Tensor] = []
        for step in range(part):
            state, rate = _jittered(log_density, state, factor=factor, size=size, leaps=leaps)
            size *= math.exp((float(rate.mean()) - _ACCEPTED) / (1 + step) ** 0.6)
            if 2 * step >= part:
                kept.append(state.z)
        if part is not parts[-1]:
            pooled = torch.cat(kept)
            covariance = pooled.T.cov() + 1e-8 * torch.eye(z.shape[-1]).to(z)
            factor = torch.linalg.cholesky(covariance)
            size = 1.5 * z.shape[-1] ** -0.25
    found, rates = [], []
    for _ in range(draws):
        for _ in range(thin):
            state, rate = _jittered(log_density, state, factor=factor, size=size, leaps=leaps)
            rates.append(float(rate.mean()))
        found.append(state.z)
    return Chains(torch.stack(found, 1), sum(rates) / len(rates))


def _jittered(
    log_density: LogDensity, state: State, *, factor: Tensor, size: float, leaps: int
) -> tuple[State, Tensor]:
    sizes = size * (0.8 + 0.4 * torch.rand(len(state.z), 1).to(state.z))
    count = int(torch.randint((leaps + 1) // 2, leaps + 1, ()))
    return move(log_density, state, factor=factor, size=sizes, leaps=count)


def worst_r_hat(figures: Tensor) -> float:
    """The largest split R-hat of several figures of each draw, shape ``(chains, draws, figures)``."""
    return float(split_gelman_rubin(figures, chain_dim=0, sample_dim=1).max())


@dataclass(frozen=True)
class Particles:
    """Particles that follow the posterior, shape ``(n, d)``, the log-evidence, and how they were led there."""

    draws: Tensor
    log_evidence: float
    stages: int
    acceptance: float


def tempered(
    log_prior: LogDensity,
    log_likelihood: LogDensity,
    z: Tensor,
    *,
    share: float = 0.9,
    moves: int = 2,
    leaps: int = 8,
    scales: Callable[[Tensor], Tensor] = lambda z: z.std(0),
) -> Particles:
    r"""Sequential Monte Carlo from the prior to the posterior, by powers of the likelihood.

    At each stage the power grows until the weights :math:`L^{\Delta\beta}` have the share ``share`` of effective
    particles; the log of their mean is added to the log-evidence, the particles are drawn again by these weights, and
    Hamiltonian moves under the new density follow.

    Args:
        log_prior: The normalized log-density of the prior.
        log_likelihood: The normalized log-likelihood.
        z: Draws of the prior, shape ``(n, d)``.
        share: Effective particles of a stage, as a fraction of n.
        moves: Hamiltonian moves at each stage.
        leaps: The largest number of leapfrog steps of a move.
        scales: Standard deviations of the coordinates that moves are scaled by, from the particles.

    Source: Del Moral, Doucet and Jasra, "Sequential Monte Carlo samplers" (2006).
    """
    power, evidence, size, stages, rates = 0.0, 0.0, 0.3, 0, [1.0]
    likelihood = _values(log_likelihood, z)
    while power < 1.0:
        step = _next_step(likelihood, 1.0 - power, share)
        power, stages = (1.0 if step >= 1.0 - power else power + step), stages + 1
        logs = step * likelihood
        evidence += float(logs.logsumexp(0)) - math.log(len(z))
        z = z[_systematic(logs.softmax(0))]

        def target(z: Tensor, power: float = power) -> Tensor:
            return log_prior(z) + power * log_likelihood(z)

        state, factor = start(target, z), scales(z)
        for _ in range(moves if power < 1.0 else 3 * moves):
            state, rate = _jittered(target, state, factor=factor, size=size, leaps=leaps)
            rates.append(float(rate.mean()))
            size *= math.exp(0.5 * (rates[-1] - _ACCEPTED))
        z = state.z
        likelihood = _values(log_likelihood, z)
    return Particles(z, evidence, stages, sum(rates) / len(rates))


@torch.no_grad()
def _values(log_density: LogDensity, z: Tensor) -> Tensor:
    return log_density(z).double().nan_to_num(nan=-math.inf)


def _next_step(likelihood: Tensor, most: float, share: float) -> float:
    """The largest step of the power, up to ``most``, at which the share of effective particles is large enough."""

    def effective(step: float) -> float:
        return 1.0 / (float((step * likelihood).softmax(0).square().sum()) * len(likelihood))

    if effective(most) >= share:
        return most
    low, high = 0.0, most
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if effective(middle) >= share else (low, middle)
    return low


def _systematic(weights: Tensor) -> Tensor:
    """Indices drawn by the weights, at evenly spaced places of their cumulative sum."""
    places = (torch.arange(len(weights)).to(weights) + torch.rand(()).to(weights)) / len(weights)
    return torch.searchsorted(weights.cumsum(0), places).clamp_max(len(weights) - 1)
