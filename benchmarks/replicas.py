"""Log Z, mean energy and entropy of pair energies by replica exchange and Bennett's acceptance ratios.

It shares with sequential Monte Carlo the moves and nothing else: another path from a Gaussian to the target, chains
that are at equilibrium at every point of the path, and another estimator of log Z.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from tqdm import tqdm

from pyro_gflows.targets import Estimate, PairTarget
from pyro_gflows.targets.metropolis import Chains

__all__ = ["Path", "Replicas", "soft_core", "weakened"]

#: The energy of a pair from its squared distance, at points of a path in [0, 1] that broadcast with it.
Path = Callable[[Tensor, Tensor], Tensor]


def weakened(target: PairTarget, scale: float) -> Path:
    """The path of mixtures b U + (1 - b) |x|^2 / (2 scale^2) with b = t^2."""
    trap = 0.5 / (scale**2 * target.n)
    return lambda square, t: t.square() * target.pair_energy(square) + (1 - t.square()) * trap * square


def soft_core(n: int, factor: float) -> Path:
    """The path of Lennard-Jones energies t f (u^-2 - 2 u^-1) with u = r^6 + (1 - t) / 2, in the trap of the target.

    At its start there is the trap alone, a Gaussian; the core, finite on the way, grows hard toward its end.
    """

    def pair(square: Tensor, t: Tensor) -> Tensor:
        inverse = (square.pow(3) + (1 - t) / 2).clamp_min(1e-6).reciprocal()
        return t * factor * inverse * (inverse - 2) + square * (0.5 / n)

    return pair


class _OnPath:
    """The system that chains at different points of a path see; points has one entry for each chain."""

    temperature, is_mean_free = 1.0, True

    def __init__(self, target: PairTarget, path: Path, points: Tensor) -> None:
        self.n, self.d, self._path, self.points = target.n, target.d, path, points

    def chain_energies(self, x: Tensor) -> Tensor:
        return self.at(x, self.points)

    def at(self, x: Tensor, points: Tensor) -> Tensor:
        energy = torch.zeros_like(x[0, 0])
        for i in range(self.n - 1):
            energy += self._path((x[i + 1 :] - x[i]).square().sum(1), points).sum(0)
        return energy

    def chain_changes(self, x: Tensor, i: int, shift: Tensor) -> Tensor:
        others = torch.cat([x[:i], x[i + 1 :]])
        old, new = (self._path((others - y).square().sum(1), self.points) for y in (x[i], x[i] + shift))
        return (new - old).sum(0)


@dataclass(frozen=True)
class Replicas:
    """Chains at the points of a path, which exchange their configurations.

    Attributes:
        points: The number of points of the path, from its start, where the density is a Gaussian, to the target.
        sets: Independent sets of chains, whose spread gives the standard errors.
        walkers: The chains at each point in a set.
        burn_in: Sweeps before anything is measured.
        sweeps: Sweeps of the measurement.
        every: After how many sweeps configurations are exchanged and measured.
    """

    points: int = 24
    sets: int = 8
    walkers: int = 8
    burn_in: int = 2000
    sweeps: int = 10_000
    every: int = 5

    @torch.no_grad()
    def __call__(
        self, target: PairTarget, path: Path, *, scale: float, generator: torch.Generator
    ) -> dict[str, Estimate]:
        """Log Z, mean energy and entropy, and the smallest accepted fraction of exchanges.

        Args:
            target: The target.
            path: The path; at 0 it must be the Gaussian of the scale.
            scale: The standard deviation of the Gaussian.
            generator: The random generator.
        """
        shape = (self.sets, self.points, self.walkers)
        line = torch.linspace(0, 1, self.points)
        system = _OnPath(target, path, line[None, :, None].expand(shape).flatten())
        # every point has step sizes of its own, so the chains of a point and a set are a group
        chains = Chains(system, scale, groups=self.sets * self.points, size=self.walkers, generator=generator)
        for k in tqdm(range(self.burn_in), desc="burn in"):
            chains.sweep(1.0, tune=0.5 / (1 + k / 100))
            if k % self.every == 0:
                self._exchange(chains, system, k // self.every, generator)
        up, down, energies, accepted = [], [], [], []
        for k in tqdm(range(self.sweeps), desc="replicas"):
            chains.sweep(1.0)
            if k % self.every:
                continue
            chains.refresh()
            own = chains.energy.reshape(shape)
            next_, last = (self._at(system, chains.x, shift).reshape(shape) for shift in (1, -1))
            up.append((next_ - own)[:, :-1])
            down.append((last - own)[:, 1:])
            energies.append(own[:, -1].double().mean(-1))
            accepted.append(self._exchange(chains, system, k // self.every, generator))
        forward, backward = torch.cat(up, -1).double(), torch.cat(down, -1).double()
        log_z = _bennett(forward, backward).sum(-1) + target.space.dimension * math.log(scale * math.sqrt(2 * math.pi))
        energy = torch.stack(energies).mean(0)
        return {
            "log_z": _estimate(log_z),
            "energy": _estimate(energy),
            "entropy": _estimate(energy + log_z),
            "exchanged": Estimate(float(torch.stack(accepted[1:]).mean()), 0.0),
        }

    def _at(self, system: _OnPath, x: Tensor, shift: int) -> Tensor:
        step = 1 / (self.points - 1)
        return system.at(x, (system.points + shift * step).clamp(0, 1))

    def _exchange(self, chains: Chains, system: _OnPath, k: int, generator: torch.Generator) -> Tensor:
        """Try to exchange the configurations at points 2 j + (k mod 2) with those at the next ones."""
        chains.refresh()
        shape = (self.sets, self.points, self.walkers)
        own = chains.energy.reshape(shape)
        next_, last = (self._at(system, chains.x, shift).reshape(shape) for shift in (1, -1))
        rise = (next_ - own)[:, :-1] + (last - own)[:, 1:]
        level = torch.rand(rise.shape, generator=generator).log()
        swap = level < -rise
        swap[:, (k + 1) % 2 :: 2] = False
        rows = torch.arange(own.numel()).reshape(shape)
        chosen = rows.clone()
        chosen[:, :-1] = torch.where(swap, rows[:, 1:], chosen[:, :-1])
        chosen[:, 1:] = torch.where(swap, rows[:, :-1], chosen[:, 1:])
        chains.choose(chosen.flatten())
        chains.refresh()
        return swap[:, k % 2 :: 2].float().mean()


def _bennett(forward: Tensor, backward: Tensor) -> Tensor:
    """The log of the ratio of the normalizers of neighboring points by Bennett's acceptance ratio, by bisection.

    Args:
        forward: Energies at the next point minus those at the own one, samples last.
        backward: Energies at the own point minus those at the next one, of the samples of the next one.
    """
    low, high = (torch.full_like(forward[..., 0], value) for value in (-1e3, 1e3))
    for _ in range(60):
        middle = (low + high) / 2
        # with the log ratio c: the mean of sigmoid(-(dU + c)) forward is that of sigmoid(dU + c) backward
        difference = torch.sigmoid(-(forward + middle[..., None])).mean(-1) - torch.sigmoid(
            -(backward - middle[..., None])
        ).mean(-1)
        low, high = torch.where(difference > 0, middle, low), torch.where(difference > 0, high, middle)
    return (low + high) / 2


def _estimate(by_set: Sequence[float] | Tensor) -> Estimate:
    values = torch.as_tensor(by_set)
    return Estimate(float(values.mean()), float(values.std()) / math.sqrt(len(values)))
