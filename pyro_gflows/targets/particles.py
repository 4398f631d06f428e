"""ParticleTarget: the density exp(-energy / temperature) of configurations of particles, with a sampler."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from pyro_gflows.actions import ParticleAction
from pyro_gflows.targets.exact_density import Density, device_of
from pyro_gflows.targets.particle_draws import ParticleDraws, SamplingReport
from pyro_gflows.targets.sequential_monte_carlo import SequentialMonteCarlo
from pyro_gflows.targets.softened import SoftenedDensity

__all__ = ["ParticleEnergy", "ParticleTarget", "Pool"]


@dataclass(frozen=True)
class Pool:
    """How many configurations a :class:`ParticleTarget` keeps, from which a fit draws its batches.

    Attributes:
        size: The number of configurations.
        seed: The seed of the run that draws them.
        cache: A file into which they are written, and from which they are read the next time.
        progress: Whether a progress bar is shown while they are drawn.

    Raises:
        ValueError: If the size is not positive.

    Example:
        >>> Pool(size=5000, seed=1).size
        5000
    """

    size: int = 20_000
    seed: int = 0
    cache: str | Path | None = None
    progress: bool = True

    def __post_init__(self) -> None:
        if self.size < 1:
            raise ValueError(f"expected a pool of at least one configuration, got size={self.size}")


class ParticleTarget(Density):
    r"""The density :math:`p(x) = \exp(-U(x) / T) / Z` of particles with an energy U and a temperature T.

    Configurations have the shape (n, d), and with ``center="mean-free"`` the center of mass 0. Densities on these are
    with respect to Lebesgue measure in an orthonormal basis of that subspace, of dimension (n - 1) d; so are log Z and
    the entropy. Tables elsewhere may leave out (n - 1) d/2 log(2 pi).

    ``sample`` draws new configurations by sequential Monte Carlo, which takes seconds or minutes. A call of the target,
    by which :func:`pyro_gflows.training.fit` takes its batches, draws at random from a pool of such configurations,
    which is made at the first call and kept.

    A subclass sets ``name`` and writes ``energy``; where they are known, it sets ``log_z`` and ``floor``, the entropy,
    with their standard errors. Where they are not, :meth:`estimate` sets them.

    Args:
        action: The symmetry of the energy, and the space of its configurations.
        temperature: The temperature T.
        sampler: How configurations are drawn; by default ``SequentialMonteCarlo()``.
        pool: How many configurations are kept for fits; by default ``Pool()``.

    Attributes:
        action: The symmetry of the energy.
        n: The number of particles.
        d: The dimension of the space in which they are.
        temperature: The temperature T.
        sampler: How configurations are drawn.
        pool: How many configurations are kept for fits.
        log_z: log Z, or None.
        log_z_error: The standard error with which log Z is known.
        floor: The entropy in nats, or None.
        floor_error: The standard error with which it is known.

    Raises:
        TypeError: If ``action`` is no ParticleAction.
        ValueError: If the temperature is not positive.

    Example:
        >>> class Springs(ParticleTarget):
        ...     name = "springs"
        ...     def energy(self, x):
        ...         return x.square().sum((-2, -1)) / 2
        >>> target = Springs(ParticleAction(3, 2), sampler=SequentialMonteCarlo(steps=5, final_sweeps=5, scale=0.9))
        >>> report = target.estimate(1000, torch.Generator().manual_seed(0))
        >>> abs(target.log_z - 2 * 1.8379) < 0.05  # a Gaussian in four dimensions
        True
    """

    log_z: float | None = None
    log_z_error: float = 0.0
    floor: float | None = None
    floor_error: float = 0.0
    test_points = 20_000

    def __init__(
        self,
        action: ParticleAction,
        *,
        temperature: float = 1.0,
        sampler: SequentialMonteCarlo | None = None,
        pool: Pool | None = None,
    ) -> None:
        if not isinstance(action, ParticleAction):
            raise TypeError(f"expected action=ParticleAction(n, d), got {type(action).__name__}")
        if not temperature > 0:
            raise ValueError(f"expected a positive temperature, got {temperature}")
        self.action, self.temperature = action, temperature
        self.sampler, self.pool = sampler or SequentialMonteCarlo(), pool or Pool()
        self.n, self.d, self.is_mean_free = action.n, action.d, action.center == "mean-free"
        self.event_shape, self.space, self.symmetry = action.event_shape, action.space, str(action.group)
        self._drawn: ParticleDraws | None = None

    @abstractmethod
    def energy(self, x: Tensor) -> Tensor:
        """Return the energies U, shape (...), of configurations of shape (..., n, d)."""

    def log_density(self, x: Tensor) -> Tensor:
        """Return -U / T, the log-density up to a constant, shape (...), of configurations of shape (..., n, d)."""
        return -self.energy(x) / self.temperature

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density -U / T - log Z in nats, shape (...), of configurations of shape (..., n, d).

        Raises:
            ValueError: If log Z is not known.
        """
        if self.log_z is None:
            raise ValueError(
                f"log Z of {self} is not known: use log_density, which is log_prob up to that constant, or let "
                "estimate() find it"
            )
        return self.log_density(x) - self.log_z

    def softened(self, *, above: float, width: float = 1.0) -> SoftenedDensity:
        """Return the log-density for training on the energy, which grows slowly where particles overlap.

        Args:
            above: The value of U / T above which it grows logarithmically.
            width: The width of the transition, as in :func:`soften`.
        """
        return SoftenedDensity(self, above=above, width=width)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n new configurations by the sampler, in the default dtype and on the device of the generator."""
        return self.sampler(self, n, generator).x

    def estimate(self, n: int = 20_000, generator: torch.Generator | None = None) -> SamplingReport:
        """Estimate log Z and the entropy by a run of the sampler, set them on this target, and return its report.

        Args:
            n: The number of draws.
            generator: The random generator; torch's global one by default.
        """
        report = self.sampler(self, n, generator).report
        self.log_z, self.log_z_error = report.log_z.value, report.log_z.error
        self.floor, self.floor_error = report.entropy.value, report.entropy.error
        return report

    def pooled(self) -> ParticleDraws:
        """Return the pool of configurations with the report of their run, which is made at the first call and kept."""
        if self._drawn is None:
            generator = torch.Generator().manual_seed(self.pool.seed)
            settings = {"cache": self.pool.cache, "progress": self.pool.progress}
            self._drawn = self.sampler(self, self.pool.size, generator, **settings)  # type: ignore[arg-type]
        return self._drawn

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw n configurations from the pool, with replacement, on the device of the generator."""
        device, x = device_of(generator), self.pooled().x
        return x.to(device)[torch.randint(len(x), (n,), generator=generator, device=device)]

    # -- what the sampler reads ---------------------------------------------------------------------------------------
    def chain_energies(self, x: Tensor) -> Tensor:
        """Return the energies of configurations with the chains in the last dimension, shape ``(n, d, chains)``.

        Args:
            x: The configurations.
        """
        return self.energy(x.permute(2, 0, 1))

    def chain_changes(self, x: Tensor, i: int, shift: Tensor) -> Tensor:
        """Return by how much the energies change if one particle is shifted.

        Args:
            x: Configurations with the chains in the last dimension; their centers of mass may be anywhere.
            i: The index of the particle.
            shift: Its shifts, shape ``(d, chains)``.
        """
        moved = x.clone()
        moved[i] += shift
        if self.is_mean_free:
            x, moved = x - x.mean(0), moved - moved.mean(0)
        return self.chain_energies(moved) - self.chain_energies(x)

    def _about(self) -> str:
        """The energy in a formula or a name."""
        return self.name

    def __repr__(self) -> str:
        known = [("log Z", self.log_z), ("entropy", self.floor)]
        parts = [f"U = {self._about()}"]
        parts += [f"temperature {self.temperature:g}"] if self.temperature != 1 else []
        parts += [f"{name} {value:.3f}" for name, value in known if value is not None]
        return f"{type(self).__name__}(n={self.n}, d={self.d}, {', '.join(parts)})"


class ParticleEnergy(ParticleTarget):
    """The density of particles with any energy, which is a function of configurations.

    It has the sampler, the fits and the reports of the named targets. The sampler calls the function n + 1 times a
    sweep; for an energy that is a sum over pairs, a subclass of :class:`PairTarget` is quicker.

    Args:
        action: The symmetry of the energy, and the space of its configurations.
        function: The energy: a function from configurations, shape (..., n, d), to energies of shape (...), which torch
            can differentiate.
        temperature: The temperature T.
        sampler: How configurations are drawn; its ``scale`` is about that of a coordinate.
        pool: How many configurations are kept for fits.

    Raises:
        TypeError: If ``action`` is no ParticleAction.
        ValueError: If the temperature is not positive, or the function returns another shape.

    Example:
        >>> target = ParticleEnergy(ParticleAction(3, 2), lambda x: x.square().sum((-2, -1)), temperature=2.0)
        >>> target.log_density(torch.tensor([[1.0, 0.0], [0.0, 0.0], [-1.0, 0.0]]))
        tensor(-1.)
    """

    def __init__(
        self,
        action: ParticleAction,
        function: Callable[[Tensor], Tensor],
        *,
        temperature: float = 1.0,
        sampler: SequentialMonteCarlo | None = None,
        pool: Pool | None = None,
    ) -> None:
        super().__init__(action, temperature=temperature, sampler=sampler, pool=pool)
        self.name = getattr(function, "__qualname__", type(function).__name__)
        self._function = function

    def energy(self, x: Tensor) -> Tensor:
        energy = self._function(x)
        if energy.shape != x.shape[:-2]:
            raise ValueError(
                f"expected the energy to map configurations of shape {tuple(x.shape)} to shape {tuple(x.shape[:-2])}, "
                f"got {tuple(energy.shape)}; sum over particles and coordinates, not over the batch"
            )
        return energy
