"""Metropolis moves of many configurations of particles at once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor

__all__ = ["Chains", "ParticleSystem"]


class ParticleSystem(Protocol):
    """What the sampler reads of a target; configurations have the layout ``(n, d, chains)``, chains last for speed.

    Attributes:
        n: The number of particles.
        d: The dimension of space.
        temperature: The temperature; the density is proportional to exp(-energy / temperature).
        is_mean_free: Whether the center of mass is fixed at 0.
    """

    n: int
    d: int
    temperature: float
    is_mean_free: bool

    def chain_energies(self, x: Tensor) -> Tensor:
        """Return the energies of configurations."""

    def chain_changes(self, x: Tensor, i: int, shift: Tensor) -> Tensor:
        """Return by how much the energies change if particle i is shifted, for shifts of shape ``(d, chains)``."""


class Chains:
    """Configurations that random moves carry on, under a density between a Gaussian and the target's.

    At the inverse temperature b in [0, 1] the density is proportional to exp(-b E - (1 - b) |x|^2 / (2 s^2)) with
    E = energy / temperature. A sweep is a move of all particles and one of each particle, accepted by Metropolis' rule.
    Where the center of mass is fixed, a move of one particle stands for the same move with the center put back to 0
    afterwards, whose proposal is symmetric as well: it is computed from one row of distances.

    Args:
        target: The target.
        scale: The standard deviation s of the Gaussian.
        groups: The number of groups of chains, each of which has step sizes of its own.
        size: The number of chains in a group; they start at draws of the Gaussian.
        generator: The random generator.

    Attributes:
        x: The configurations, shape ``(n, d, chains)``, in the default dtype.
        energy: E of the chains.
        square: |x|^2 of the chains.
    """

    def __init__(
        self, target: ParticleSystem, scale: float, *, groups: int, size: int, generator: torch.Generator
    ) -> None:
        self.target, self.scale, self._generator = target, scale, generator
        self._groups, self._size = groups, size
        self.x = scale * self._noise(target.n, target.d, groups * size)
        self.energy = self.square = torch.zeros_like(self.x[0, 0])
        # a move of one particle by v adds v / n to the center of mass, which is put back to 0 at the next sweep
        self._center = torch.zeros_like(self.x[0])
        self._own = 1 - 1 / target.n if target.is_mean_free else 1.0
        # the step sizes of moves of all particles, and of one particle, for each group
        self._steps = self.x.new_tensor([scale / 4, scale]).unsqueeze(-1).expand(2, groups)
        self.refresh()

    def _noise(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self._generator, device=self._generator.device)

    def refresh(self) -> None:
        """Put centers of mass to 0, and compute energies anew, in which rounding errors of many moves add up."""
        self._put_center_back()
        self.energy = self.target.chain_energies(self.x) / self.target.temperature
        self.square = self.x.square().sum((0, 1))

    def choose(self, rows: Tensor) -> None:
        """Go on with some of the chains, which may be repeated.

        Args:
            rows: Their indices.
        """
        self._put_center_back()
        self.x, self.energy, self.square = self.x[..., rows], self.energy[rows], self.square[rows]

    def sweep(self, power: float, *, tune: float = 0.0, acceptance: float = 0.4) -> Tensor:
        """Try a move of all particles and one of each particle.

        Args:
            power: The inverse temperature b.
            tune: By how much the logarithms of the step sizes follow the accepted fraction; 0 leaves the steps.
            acceptance: The fraction to which the steps are tuned.

        Returns:
            The fractions that were accepted of the moves of all particles and of those of one, shape ``(2, groups)``.
        """
        n, d, count = self.x.shape
        noise = self._noise(2 * n, d, count)
        levels = torch.rand(n + 1, count, generator=self._generator, device=self.x.device).log_()
        large, small = self._steps.repeat_interleave(self._size, -1)
        together = self._move_all(large * noise[:n], levels[n], power)
        singly = torch.stack([self._move_one(i, small * noise[n + i], levels[i], power) for i in range(n)])
        fractions = torch.stack([together.to(large.dtype), singly.to(large.dtype).mean(0)])
        fractions = fractions.unflatten(-1, (self._groups, self._size)).mean(-1)
        if tune:
            self._steps = self._steps * (tune * (fractions - acceptance)).exp()
        return fractions

    def _move_all(self, shift: Tensor, level: Tensor, power: float) -> Tensor:
        self._put_center_back()
        moved = self.x + shift
        if self.target.is_mean_free:
            moved -= moved.mean(0)
        energy = self.target.chain_energies(moved) / self.target.temperature
        square = moved.square().sum((0, 1))
        rise = power * (energy - self.energy) + (1 - power) * (square - self.square) / (2 * self.scale**2)
        accepted = level < -rise
        self.x = torch.where(accepted, moved, self.x)
        self.energy = torch.where(accepted, energy, self.energy)
        self.square = torch.where(accepted, square, self.square)
        return accepted

    def _move_one(self, i: int, shift: Tensor, level: Tensor, power: float) -> Tensor:
        change = self.target.chain_changes(self.x, i, shift) / self.target.temperature
        longer = (2 * (self.x[i] - self._center) + self._own * shift).mul_(shift).sum(0)
        accepted = level < -(power * change + (1 - power) * longer / (2 * self.scale**2))
        shift = shift * accepted
        self.x[i] += shift
        self._center += (1 - self._own) * shift
        self.energy = torch.where(accepted, self.energy + change, self.energy)
        self.square = torch.where(accepted, self.square + longer, self.square)
        return accepted

    def _put_center_back(self) -> None:
        if self.target.is_mean_free:
            self.x = self.x - self.x.mean(0)
            self._center = torch.zeros_like(self.x[0])
