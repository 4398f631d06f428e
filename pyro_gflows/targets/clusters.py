"""The two clusters of particles on which flows of particle systems are compared."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from pyro_gflows.actions import ParticleAction
from pyro_gflows.targets.pairs import PairTarget
from pyro_gflows.targets.particles import ParticleTarget, Pool
from pyro_gflows.targets.sequential_monte_carlo import SequentialMonteCarlo

__all__ = ["CLUSTERS", "DoubleWell", "LennardJones"]

_TINY = 1e-30  # of squared distances: coincident particles are taken as so close, with slope 0


class DoubleWell(PairTarget):
    r"""Four particles in the plane, whose pairs have the energy of a double well: two preferred distances.

    The energy is :math:`U(x) = \sum_{i<j} 0.9 (r_{ij} - 4)^4 - 4 (r_{ij} - 4)^2` with the distances :math:`r_{ij}` of
    pairs, at temperature 1. Each pair prefers a distance of 2.51 or 5.49. The density is invariant under rotations,
    reflections and permutations. At distance 0 the energy of a pair is 166.4 and its gradient, which has no direction
    there, is taken as 0.

    For four particles log Z is 29.664 +- 0.003, the mean energy -22.534 +- 0.005 and the entropy 7.130 +- 0.004
    (``benchmarks/particle_constants.py``).

    Args:
        n: The number of particles. log Z and the entropy are known for 4.
        pool: How many configurations are kept for fits; by default ``Pool()``.

    Raises:
        ValueError: If there are fewer than two particles.

    Example:
        >>> target = DoubleWell()
        >>> target
        DoubleWell(n=4, d=2, U = sum over i<j of 0.9 (r - 4)^4 - 4 (r - 4)^2, log Z 29.664, entropy 7.130)
        >>> import torch
        >>> x = torch.tensor([[0.0, 0.0], [4.0, 0.0]])
        >>> DoubleWell(n=2).energy(x - x.mean(0))
        tensor(0.)
    """

    name = "dw4"

    def __init__(self, n: int = 4, *, pool: Pool | None = None) -> None:
        sampler = SequentialMonteCarlo(steps=600, curve=2.0, final_sweeps=600, scale=2.0)
        super().__init__(ParticleAction(n, 2), sampler=sampler, pool=pool)
        if n == 4:
            self.log_z, self.log_z_error, self.floor, self.floor_error = 29.664, 0.003, 7.130, 0.004

    def pair_energy(self, square: Tensor) -> Tensor:
        well = (square.clamp_min(_TINY).sqrt() - 4).square()
        return well * (0.9 * well - 4)

    def _about(self) -> str:
        return "sum over i<j of 0.9 (r - 4)^4 - 4 (r - 4)^2"


class LennardJones(PairTarget):
    r"""Thirteen particles in space that attract each other weakly and repel each other at close distances.

    The energy is :math:`U(x) = c \sum_{i<j} (r_{ij}^{-12} - 2 r_{ij}^{-6}) + \frac12 \sum_i |x_i|^2` with the
    distances :math:`r_{ij}` of pairs, for a center of mass at 0, at temperature 1. **Two conventions are in use**:
    c = 2, the sum over *ordered* pairs, which the published data sets of 13 particles follow; and c = 1, the sum over
    *unordered* pairs, as some code has it. These are different densities, whose figures cannot be compared. The density
    is invariant under rotations, reflections and permutations.

    Pairs closer than 0.1 have an energy that is linear in the square of their distance, with the value and the slope of
    U there, so that energies and gradients are finite in float32, also of coincident particles. The density
    there is exp(-10^12) or less, which is 0, so that the density is the same.

    For 13 particles and ordered pairs, log Z is 59.877 +- 0.010, the mean energy -42.97 +- 0.03 and the entropy
    16.90 +- 0.03, by two methods (``benchmarks/particle_constants.py``).

    Args:
        n: The number of particles. log Z and the entropy are known for 13 and ordered pairs.
        pairs: Which sum the energy is: ``"ordered"`` for c = 2, ``"unordered"`` for c = 1.
        pool: How many configurations are kept for fits; by default ``Pool()``.

    Raises:
        ValueError: If there are fewer than two particles, or ``pairs`` is neither of the two words.

    Example:
        >>> target = LennardJones()
        >>> target
        LennardJones(n=13, d=3, U = 2 sum over i<j of (r^-12 - 2 r^-6) + |x|^2 / 2, log Z 59.877, entropy 16.900)
        >>> import torch
        >>> x = torch.tensor([[0.5, 0.0, 0.0], [-0.5, 0.0, 0.0]])
        >>> LennardJones(n=2).energy(x), LennardJones(n=2, pairs="unordered").energy(x)
        (tensor(-1.7500), tensor(-0.7500))
    """

    name = "lj13"
    test_points = 5000
    core = 0.1
    """The distance below which the energy of a pair is linear in the squared distance."""

    def __init__(
        self,
        n: int = 13,
        *,
        pairs: Literal["ordered", "unordered"] = "ordered",
        pool: Pool | None = None,
    ) -> None:
        factors = {"ordered": 2.0, "unordered": 1.0}
        if pairs not in factors:
            raise ValueError(f"expected pairs='ordered' (factor 2) or pairs='unordered' (factor 1), got {pairs!r}")
        sampler = SequentialMonteCarlo(steps=600, curve=4.0, final_sweeps=300, scale=1.0)
        super().__init__(ParticleAction(n, 3), sampler=sampler, pool=pool)
        self.pairs, self._factor = pairs, factors[pairs]
        if n == 13 and pairs == "ordered":
            self.log_z, self.log_z_error, self.floor, self.floor_error = 59.877, 0.010, 16.90, 0.03

    def pair_energy(self, square: Tensor) -> Tensor:
        limit = self.core**2
        third = square.clamp_min(limit).reciprocal().pow(3)
        inside = (6 * (limit**-4 - limit**-7)) * (square - limit).clamp_max(0)
        # with the center of mass at 0, |x|^2 is the sum of the squared distances of pairs over n
        return self._factor * (third * (third - 2) + inside) + square * (0.5 / self.n)

    def _about(self) -> str:
        return f"{self._factor:g} sum over i<j of (r^-12 - 2 r^-6) + |x|^2 / 2"


CLUSTERS: tuple[ParticleTarget, ...] = (DoubleWell(), LennardJones())
