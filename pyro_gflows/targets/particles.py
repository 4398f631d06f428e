"""ParticleTarget: the density exp(-energy / temperature) of configurations of particles, with a sampler."""

from __future__ import annotations

from abc import abstractmethod

import torch
from torch import Tensor

from pyro_gflows.targets.exact_density import Density
from pyro_gflows.targets.sequential_monte_carlo import SequentialMonteCarlo

__all__ = ["PairTarget", "ParticleTarget"]


class ParticleTarget(Density):
    r"""The density :math:`p(x) = \exp(-U(x) / T) / Z` of n particles in R^d with an energy U and a temperature T.

    Configurations have the shape (n, d) and the center of mass 0. Densities on them are with respect to Lebesgue
    measure in an orthonormal basis of that subspace, of dimension (n - 1) d; so are log Z and the entropy, of which
    other authors leave out constants.

    ``sample`` draws new configurations by sequential Monte Carlo, which takes seconds at least. A call of the target,
    by which :func:`pyro_gflows.training.fit` takes its batches, draws from a pool of such configurations, which is made
    at the first call and kept.

    A subclass sets ``name``, ``n``, ``d`` and ``sampler``, and writes ``energy``; where they are known, it sets
    ``log_z``, ``floor`` (the entropy) and their standard errors.

    Args:
        pool: The number of configurations in the pool.
        pool_seed: The seed of the pool.

    Attributes:
        n: The number of particles.
        d: The dimension of space.
        temperature: The temperature T.
        log_z: log Z, or None.
        log_z_error: The standard error with which log_z is known.
        floor: The entropy in nats, or None.
        floor_error: The standard error with which it is known.
        sampler: How configurations are drawn.
    """

    n: int
    d: int
    temperature: float = 1.0
    is_mean_free: bool = True
    log_z: float | None = None
    log_z_error: float = 0.0
    floor: float | None = None  # type: ignore[assignment]
    floor_error: float = 0.0
    sampler = SequentialMonteCarlo()

    _formula: str

    def __init__(self, *, pool: int = 20_000, pool_seed: int = 0) -> None:
        if self.n < 2:
            raise ValueError(f"expected at least two particles, got n={self.n}")
        self.event_shape = torch.Size((self.n, self.d))
        self._pool_size, self._pool_seed = pool, pool_seed
        self._pool: Tensor | None = None

    @property
    def dimension(self) -> int:
        """The dimension of the space of configurations, (n - 1) d."""
        return (self.n - 1 if self.is_mean_free else self.n) * self.d

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """Return the energies U, shape (...), of configurations of shape (..., n, d)."""

    def log_density(self, x: Tensor) -> Tensor:
        """Return -U / T, the log-density up to a constant, shape (...), of configurations of shape (..., n, d)."""
        return -self.energy(x) / self.temperature

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density -U / T - log Z in nats, shape (...).

        Raises:
            ValueError: If log Z is not known.
        """
        if self.log_z is None:
            raise ValueError(
                f"log Z of {self} is not known, so that log_prob is not; use log_density, which is log_prob up to this "
                "constant, or estimate log Z by sampler(target, n).report.log_z"
            )
        return self.log_density(x) - self.log_z

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw new configurations, shape (n, particles, d), by :attr:`sampler`."""
        return self.sampler(self, n, generator).x

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n configurations from the pool, with replacement."""
        device = torch.device("cpu") if generator is None else generator.device
        rows = torch.randint(self._pool_size, (n,), generator=generator, device=device)
        return self.pool().to(device)[rows]

    def pool(self) -> Tensor:
        """Return the pool of configurations, which is made at the first call."""
        if self._pool is None:
            self._pool = self.sample(self._pool_size, torch.Generator().manual_seed(self._pool_seed))
        return self._pool

    def chain_energies(self, x: Tensor) -> Tensor:
        """Return the energies of configurations with the chains in the last dimension, shape ``(n, d, chains)``."""
        return self.energy(x.permute(2, 0, 1)).detach()

    def chain_changes(self, x: Tensor, i: int, shift: Tensor) -> Tensor:
        """Return by how much the energies change if particle i is shifted, for shifts of shape ``(d, chains)``."""
        moved = x.clone()
        moved[i] += shift
        both = torch.stack([x, moved])
        if self.is_mean_free:
            both = both - both.mean(1, keepdim=True)
        return self.chain_energies(both[1]) - self.chain_energies(both[0])

    def __repr__(self) -> str:
        parts = [f"n={self.n}", f"d={self.d}", f"U = {self._formula}"]
        parts += [f"temperature {self.temperature:g}"] if self.temperature != 1 else []
        parts += [f"{name} {value}" for name, value in (("log Z", self.log_z), ("entropy", self.floor)) if value]
        return f"{type(self).__name__}({', '.join(parts)})"


class PairTarget(ParticleTarget):
    """A density whose energy is a sum over pairs of a function of the squared distance.

    A move of one particle then needs n - 1 of the distances, so that it is quick to sample. A subclass writes
    ``pair_energy``.
    """

    @abstractmethod
    def pair_energy(self, square: Tensor) -> Tensor:
        """Return the energies of pairs from their squared distances, both of any shape."""

    def energy(self, x: Tensor) -> Tensor:
        i, j = torch.triu_indices(self.n, self.n, 1, device=x.device)
        return self.pair_energy((x[..., i, :] - x[..., j, :]).square().sum(-1)).sum(-1)

    def chain_energies(self, x: Tensor) -> Tensor:
        energy = torch.zeros_like(x[0, 0])
        for i in range(self.n - 1):
            energy += self.pair_energy((x[i + 1 :] - x[i]).square().sum(1)).sum(0)
        return energy

    def chain_changes(self, x: Tensor, i: int, shift: Tensor) -> Tensor:
        others = torch.cat([x[:i], x[i + 1 :]])
        old = (others - x[i]).square_().sum(1)
        new = (others - (x[i] + shift)).square_().sum(1)
        return (self.pair_energy(new) - self.pair_energy(old)).sum(0)
