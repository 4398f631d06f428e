"""Exact densities on the torus of two angles, also as energies whose normalization is known."""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor

from pyro_gflows.numerics.angles import wrap_angle
from pyro_gflows.spaces import Torus
from pyro_gflows.targets.exact_density import Density, device_of

__all__ = ["ON_TORUS", "TorusCorrelated", "TorusDensity", "TorusMultimodal", "TorusSquare", "TorusUnimodal"]


class TorusDensity(Density):
    """A density of two angles, given by a log-density up to a constant.

    ``log_prob`` is normalized, log_prob(x) = log_density(x) - log_z. A fit to an energy takes ``log_density``, and has
    to find the constant.

    Attributes:
        log_z: The logarithm of the integral of exp(log_density) over [0, 2 pi)^2.

    Example:
        >>> target = TorusUnimodal()
        >>> isinstance(target, TorusDensity), target.space
        (True, Torus(2))
    """

    space = Torus((2,))
    log_z: float

    @abstractmethod
    def log_density(self, x: Tensor) -> Tensor:
        """Return the log-density up to a constant, shape (...), of angles of shape (..., 2)."""

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density in nats, shape (...), of angles of shape (..., 2)."""
        return self.log_density(x) - self.log_z


class _Mixture(TorusDensity):
    """The mean of exp(kappa (cos(a - c_1) + cos(b - c_2))) over some centers (c_1, c_2)."""

    centers: tuple[tuple[float, float], ...]
    concentration = 1.0

    def log_density(self, x: Tensor) -> Tensor:
        """Return the log-mean-exp over the centers."""
        centers = torch.tensor(self.centers, dtype=x.dtype, device=x.device)
        terms = self.concentration * (x.unsqueeze(-2) - centers).cos().sum(-1)
        return terms.logsumexp(-1) - math.log(len(self.centers))

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a center for each point, and two von Mises angles about it."""
        device = device_of(generator)
        angles = _von_mises(2 * n, self.concentration, generator).reshape(n, 2)
        which = torch.randint(len(self.centers), (n,), generator=generator, device=device)
        return wrap_angle(torch.tensor(self.centers, device=device).to(angles)[which] + angles)


class TorusUnimodal(_Mixture):
    """The density proportional to exp(cos(a - 4.18) + cos(b - 5.96)) of two angles a and b: one mode.

    It is invariant under reflections of each angle at the mode, which is at no rational part of the circle, so that it
    has no symmetry among the named groups.

    Source: Normalizing Flows on Tori and Spheres, arXiv:2002.02428.

    Example:
        >>> target = TorusUnimodal()
        >>> target.log_prob(torch.tensor([4.18, 5.96])), target.sample(3).shape
        (tensor(-2.1476), torch.Size([3, 2]))
    """

    name, symmetry = "torus-unimodal", "C1"
    floor, log_z = 3.254803, 4.147583
    centers = ((4.18, 5.96),)


class TorusMultimodal(_Mixture):
    """The mean of three densities like :class:`TorusUnimodal` about (0.21, 2.85), (1.89, 6.18) and (3.77, 1.56).

    Source: Normalizing Flows on Tori and Spheres, arXiv:2002.02428.

    Example:
        >>> TorusMultimodal().sample(3).shape
        torch.Size([3, 2])
    """

    name, symmetry = "torus-multimodal", "C1"
    floor, log_z = 3.602380, 4.147583
    centers = ((0.21, 2.85), (1.89, 6.18), (3.77, 1.56))


class TorusCorrelated(TorusDensity):
    """The density proportional to exp(cos(a + b - 1.94)) of two angles a and b, uniform where a + b is constant.

    It is invariant under the translations that fix a + b (``TorusAction.fixing([[1, 1]])``), and under the exchange of
    the angles.

    Source: Normalizing Flows on Tori and Spheres, arXiv:2002.02428.

    Example:
        >>> x = torch.tensor([[1.0, 0.5], [1.7, -0.2]])
        >>> TorusCorrelated().log_prob(x).diff().abs().item() < 1e-6
        True
    """

    name, symmetry = "torus-correlated", "C1"
    floor, log_z = 3.465279, 3.911668

    def log_density(self, x: Tensor) -> Tensor:
        """Return cos(a + b - 1.94)."""
        return (x.sum(-1) - 1.94).cos()

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a uniform first angle, and the sum of both from a von Mises density."""
        total = 1.94 + _von_mises(n, 1.0, generator)
        first = 2 * math.pi * torch.rand(n, generator=generator, device=total.device, dtype=total.dtype)
        return wrap_angle(torch.stack([first, total - first], -1))


class TorusSquare(_Mixture):
    """Eight von Mises modes of concentration 6 that the symmetries of the square (D4) permute.

    D4 acts on two angles by exchanges and sign flips, ``TorusAction.point_group("D4")``; the modes are the images of
    (0.8, 2.0). It shows what a symmetry is worth on a torus, since one of the eight modes determines all others.

    Example:
        >>> TorusSquare().log_prob(torch.tensor([[0.8, 2.0], [-2.0, 0.8]])).diff().abs().item() < 1e-5
        True
    """

    name, symmetry = "torus-square", "D4"
    floor, log_z = 3.056632, 12.092124
    concentration = 6.0
    centers = tuple((a, b) for u, v in ((0.8, 2.0), (2.0, 0.8)) for a in (u, -u) for b in (v, -v))


def _von_mises(n: int, concentration: float, generator: torch.Generator | None) -> Tensor:
    """Draw n angles in [-pi, pi) with a density proportional to exp(concentration cos x), by rejection."""
    device = device_of(generator)
    kept: list[Tensor] = [torch.zeros(0, device=device)]
    missing = n
    while missing > 0:
        tries = 4 * missing + 64
        angle = 2 * math.pi * torch.rand(tries, generator=generator, device=device) - math.pi
        level = torch.rand(tries, generator=generator, device=device)
        kept.append(angle[level < (concentration * (angle.cos() - 1)).exp()][:missing])
        missing -= len(kept[-1])
    return torch.cat(kept)


ON_TORUS: tuple[Density, ...] = (TorusUnimodal(), TorusMultimodal(), TorusCorrelated(), TorusSquare())
