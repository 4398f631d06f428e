"""PairTarget: energies that are sums over pairs of particles."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions import ParticleAction
from pyro_gflows.targets.particles import ParticleTarget
from pyro_gflows.targets.softened import SoftenedDensity, soften

__all__ = ["PairTarget"]


class PairTarget(ParticleTarget):
    r"""A density of particles whose energy is a sum over pairs, :math:`U(x) = \sum_{i<j} v(|x_i - x_j|^2)`.

    A move of one particle changes n - 1 of the terms, so that it is quick to sample. A subclass writes ``pair_energy``
    and sets ``name``; the arguments are those of :class:`ParticleTarget`. An energy with other terms is a
    ``ParticleTarget``.

    Raises:
        ValueError: The action leaves the center of mass free, where such an energy has no normalizable density.
        TypeError: A subclass writes ``energy``, of which draws would know nothing.

    Example:
        >>> from pyro_gflows.actions import ParticleAction
        >>> class Springs(PairTarget):
        ...     name = "springs"
        ...     def pair_energy(self, square):
        ...         return square / 2
        >>> Springs(ParticleAction(2, 2)).energy(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]))
        tensor(2.)
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "energy" in cls.__dict__:
            raise TypeError(
                f"expected {cls.__name__} to write pair_energy alone, as draws of a PairTarget know only that, got "
                "energy too: make it a ParticleTarget, whose energy is any function of configurations"
            )

    def __init__(self, action: ParticleAction, **options: Any) -> None:
        super().__init__(action, **options)
        if not self.is_mean_free:
            raise ValueError(
                "expected an action with center='mean-free', as an energy of differences of positions has no "
                f"normalizable density where the center of mass is anywhere, got {action}"
            )

    @abstractmethod
    def pair_energy(self, square: Tensor) -> Tensor:
        """Return the energies v of pairs.

        Args:
            square: The squared distances, of any shape.
        """

    def energy(self, x: Tensor) -> Tensor:
        return self.pair_energy(self._squares(x)).sum(-1)

    def softened(self, *, above: float, width: float = 1.0) -> SoftenedDensity:
        """Return the log-density for training on the energy, in which the energy of each pair is softened by itself.

        A pair that overlaps then changes nothing in the gradient of the others.

        Args:
            above: The value of v / T above which the energy of a pair grows logarithmically.
            width: The width of the transition, as in :func:`soften`.
        """

        def pairs(x: Tensor) -> Tensor:
            energies = self.pair_energy(self._squares(x)) / self.temperature
            return -soften(energies, above, width=width).sum(-1)

        return SoftenedDensity(self, above=above, width=width, soft=pairs)

    def _squares(self, x: Tensor) -> Tensor:
        """The squared distances of all pairs, in the last dimension."""
        i, j = torch.triu_indices(self.n, self.n, 1, device=x.device)
        return (x[..., i, :] - x[..., j, :]).square().sum(-1)

    def chain_energies(self, x: Tensor) -> Tensor:
        energy = torch.zeros_like(x[0, 0])
        for i in range(self.n - 1):
            energy += self.pair_energy((x[i + 1 :] - x[i]).square_().sum(1)).sum(0)
        return energy

    def chain_changes(self, x: Tensor, i: int, shift: Tensor) -> Tensor:
        others = torch.cat([x[:i], x[i + 1 :]])
        old, new = (self.pair_energy((others - y).square_().sum(1)) for y in (x[i], x[i] + shift))
        return (new - old).sum(0)
