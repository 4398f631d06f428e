"""Exact densities on the plane, with log-density, sampler and entropy, so that a gap to them is known exactly."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["DENSITIES", "Checkerboard", "Density", "EightGaussians", "Rings", "density"]


class Density(ABC):
    """A density on the plane with an exact log-density and an exact sampler.

    A call of the density draws samples, so that :func:`pyro_gflows.training.fit` takes it as its data and sees new
    points at every step.

    Attributes:
        name: The name of the density on the command line.
        symmetry: The name of the largest planar group, with a reflection in the first axis, under which the density is
            invariant.
        floor: The entropy in nats, which is the lowest mean NLL that any model can reach.
        data_sd: The root mean square of the coordinates, each of which has the mean zero.

    Example:
        >>> class Normal(Density):
        ...     name, symmetry, floor, data_sd = "normal", "O(2)", 1 + math.log(2 * math.pi), 1.0
        ...     def log_prob(self, x):
        ...         return -x.square().sum(-1) / 2 - math.log(2 * math.pi)
        ...     def sample(self, n, generator=None):
        ...         return torch.randn(n, 2, generator=generator)
        >>> Normal()
        Normal(symmetry='O(2)', floor=2.8379)
    """

    name: str
    symmetry: str
    floor: float
    data_sd: float
    event_shape = torch.Size((2,))

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density in nats, shape (...), of points of shape (..., 2)."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw points, shape (n, 2), in the default dtype and on the device of the generator."""

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw points as :meth:`sample` does."""
        return self.sample(n, generator)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(symmetry={self.symmetry!r}, floor={self.floor:.4f})"


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


class EightGaussians(Density):
    """A mixture of eight equal Gaussians whose means lie on a circle.

    The density is p(x) = 1/8 sum_k N(x; R (cos k pi/4, sin k pi/4), s^2 I) over k = 0, ..., 7, with R = 4/1.414 and
    s = 0.5/1.414. It is invariant under D8, the symmetries of the octagon.

    Example:
        >>> target = EightGaussians()
        >>> target.log_prob(torch.tensor([[4 / 1.414, 0.0]])).shape
        torch.Size([1])
    """

    name = "8gaussians"
    symmetry = "D8"
    floor = 2.831880
    radius = 4 / 1.414
    sd = 0.5 / 1.414
    data_sd = math.sqrt(radius**2 / 2 + sd**2)

    def _centers(self, like: Tensor) -> Tensor:
        angles = torch.arange(8, dtype=like.dtype, device=like.device) * (math.pi / 4)
        return self.radius * torch.stack([angles.cos(), angles.sin()], dim=-1)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density, the log-sum-exp over the eight means."""
        squares = (x.unsqueeze(-2) - self._centers(x)).square().sum(-1)
        return torch.logsumexp(-squares / (2 * self.sd**2), dim=-1) - math.log(8 * 2 * math.pi * self.sd**2)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw one of the eight means for each point, and add noise."""
        device = _device(generator)
        noise = torch.randn(n, 2, generator=generator, device=device)
        which = torch.randint(8, (n,), generator=generator, device=device)
        return self._centers(noise)[which] + self.sd * noise


class Rings(Density):
    """Four concentric circles with equal weights, each uniform along the circle, with isotropic Gaussian noise.

    The density is p(x) = 1/4 sum_r exp(-(|x| - r)^2 / 2 s^2) I0e(|x| r / s^2) / (2 pi s^2) over the radii r = 3, 2.25,
    1.5 and 0.75, with s = 0.08: each term is a Gaussian averaged over one circle. I0e(z) = exp(-z) I0(z) is the scaled
    modified Bessel function of order 0, which does not overflow. ``log_prob`` maps (..., 2) to (...). The density is
    invariant under O(2), all rotations and reflections.

    Example:
        >>> target = Rings()
        >>> target.sample(3, torch.Generator().manual_seed(0)).shape
        torch.Size([3, 2])
    """

    name = "rings"
    symmetry = "O(2)"
    floor = 2.623183
    radii = (3.0, 2.25, 1.5, 0.75)
    sd = 0.08
    data_sd = math.sqrt(sum(r * r for r in radii) / len(radii) / 2 + sd**2)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density, the log-sum-exp over the four circles."""
        r = x.norm(dim=-1, keepdim=True)
        radii = torch.tensor(self.radii, dtype=x.dtype, device=x.device)
        bessel = torch.special.i0e(r * radii / self.sd**2).log()
        terms = bessel - (r - radii).square() / (2 * self.sd**2)
        return torch.logsumexp(terms, dim=-1) - math.log(len(self.radii) * 2 * math.pi * self.sd**2)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a circle and an angle for each point, and add noise."""
        device = _device(generator)
        noise = torch.randn(n, 2, generator=generator, device=device)
        angle = 2 * math.pi * torch.rand(n, generator=generator, device=device)
        which = torch.randint(len(self.radii), (n,), generator=generator, device=device)
        radius = torch.tensor(self.radii, dtype=noise.dtype, device=device)[which]
        return radius.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], dim=-1) + self.sd * noise


class Checkerboard(Density):
    """The uniform distribution on the eight black cells of a 4 x 4 checkerboard on [-4, 4]^2.

    The cells have sides of length 2, and the lower-left cell is black; p(x) = 1/32 on the black cells and 0 elsewhere.
    The density is invariant under C2, since a rotation by 180 degrees keeps the colors. Rotations by 90 degrees and
    reflections in the axes swap them. (The two diagonal reflections keep the colors too, but the dihedral groups of the
    plane have their reflection in the first axis.)

    Example:
        >>> Checkerboard().log_prob(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        tensor([-3.4657,    -inf])
    """

    name = "checkerboard"
    symmetry = "C2"
    floor = math.log(32)
    data_sd = 4 / math.sqrt(3)

    def log_prob(self, x: Tensor) -> Tensor:
        """Return the log-density, -log 32 on the black cells and -inf elsewhere."""
        cell = torch.floor(x / 2)
        black = (cell.sum(-1) % 2 == 0) & (x.abs() <= 4).all(-1)
        return x.new_full(black.shape, -self.floor).masked_fill(~black, -math.inf)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a black cell for each point, and a uniform point in it."""
        device = _device(generator)
        within = torch.rand(n, 2, generator=generator, device=device)
        column = torch.randint(4, (n,), generator=generator, device=device)
        half = torch.randint(2, (n,), generator=generator, device=device)
        row = 2 * half + column % 2
        return 2 * (torch.stack([column, row], dim=-1) + within) - 4


#: The exact densities on the plane, by name.
DENSITIES: dict[str, Density] = {d.name: d for d in (EightGaussians(), Rings(), Checkerboard())}


def density(name: str) -> Density:
    """Return the density with a name.

    Args:
        name: One of the names in :data:`DENSITIES`.

    Raises:
        ValueError: If the name is not known; the message lists the names and the most similar one.

    Example:
        >>> density("rings").symmetry
        'O(2)'
    """
    if name in DENSITIES:
        return DENSITIES[name]
    near = difflib.get_close_matches(name, DENSITIES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown density {name!r}: expected one of {sorted(DENSITIES)}{hint}")
