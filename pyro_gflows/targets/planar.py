"""Exact densities on the plane: log-density, sampler and entropy, so that a gap to them has no estimate in it."""

from __future__ import annotations

import difflib
import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

__all__ = ["DENSITIES", "Checkerboard", "Density", "EightGaussians", "Rings", "density"]


class Density(ABC):
    """A density on the plane that can be scored and sampled exactly.

    Calling it draws samples, so :func:`pyro_gflows.training.fit` takes a density as its data: fresh points every step.

    Attributes:
        name: What the command line calls it.
        symmetry: The largest named planar group (its reflection is in the first axis) that leaves it invariant.
        floor: Its entropy in nats, the lowest mean NLL that any model can reach.
        data_sd: The root mean square of its coordinates (each has mean zero).
    """

    name: str
    symmetry: str
    floor: float
    data_sd: float
    event_shape = torch.Size((2,))

    @abstractmethod
    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density in nats of points of shape (..., 2); the result has shape (...)."""

    @abstractmethod
    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw (n, 2) points in the default dtype, on the generator's device."""

    def __call__(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """The same as :meth:`sample`."""
        return self.sample(n, generator)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(symmetry={self.symmetry!r}, floor={self.floor:.4f})"


def _device(generator: torch.Generator | None) -> torch.device:
    return torch.device("cpu") if generator is None else generator.device


class EightGaussians(Density):
    """Eight equal Gaussians on a circle.

    p(x) = 1/8 sum_k N(x; R (cos k pi/4, sin k pi/4), s^2 I) with R = 4/1.414 and s = 0.5/1.414.

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
        """Log-density: log-sum-exp over the eight centers."""
        squares = (x.unsqueeze(-2) - self._centers(x)).square().sum(-1)
        return torch.logsumexp(-squares / (2 * self.sd**2), dim=-1) - math.log(8 * 2 * math.pi * self.sd**2)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a center, then add noise."""
        device = _device(generator)
        noise = torch.randn(n, 2, generator=generator, device=device)
        which = torch.randint(8, (n,), generator=generator, device=device)
        return self._centers(noise)[which] + self.sd * noise


class Rings(Density):
    """Four concentric circles blurred by isotropic noise.

    p(x) = 1/4 sum_r exp(-(|x| - r)^2 / 2 s^2) I0e(|x| r / s^2) / (2 pi s^2) over r in (3, 2.25, 1.5, 0.75), s = 0.08,
    where I0e(z) = exp(-z) I0(z) comes from averaging a Gaussian over the circle and never overflows.

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
        """Log-density: log-sum-exp over the four rings."""
        r = x.norm(dim=-1, keepdim=True)
        radii = torch.tensor(self.radii, dtype=x.dtype, device=x.device)
        bessel = torch.special.i0e(r * radii / self.sd**2).log()
        terms = bessel - (r - radii).square() / (2 * self.sd**2)
        return torch.logsumexp(terms, dim=-1) - math.log(len(self.radii) * 2 * math.pi * self.sd**2)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a ring and an angle, then add noise."""
        device = _device(generator)
        noise = torch.randn(n, 2, generator=generator, device=device)
        angle = 2 * math.pi * torch.rand(n, generator=generator, device=device)
        which = torch.randint(len(self.radii), (n,), generator=generator, device=device)
        radius = torch.tensor(self.radii, dtype=noise.dtype, device=device)[which]
        return radius.unsqueeze(-1) * torch.stack([angle.cos(), angle.sin()], dim=-1) + self.sd * noise


class Checkerboard(Density):
    """Uniform on the eight black cells of a 4 x 4 board on [-4, 4]^2 (cells of side 2, the lower-left one is black).

    p(x) = 1/32 on black, 0 elsewhere. Half-turns keep the colors, quarter-turns and axis reflections swap them. (The
    two diagonal reflections keep them too, but the planar dihedral groups here reflect in the first axis.)

    Example:
        >>> Checkerboard().log_prob(torch.tensor([[1.0, 1.0], [1.0, -1.0]]))
        tensor([-3.4657,    -inf])
    """

    name = "checkerboard"
    symmetry = "C2"
    floor = math.log(32)
    data_sd = 4 / math.sqrt(3)

    def log_prob(self, x: Tensor) -> Tensor:
        """Log-density: -log 32 on black cells, -inf elsewhere."""
        cell = torch.floor(x / 2)
        black = (cell.sum(-1) % 2 == 0) & (x.abs() <= 4).all(-1)
        return x.new_full(black.shape, -self.floor).masked_fill(~black, -math.inf)

    def sample(self, n: int, generator: torch.Generator | None = None) -> Tensor:
        """Draw a black cell, then a uniform point in it."""
        device = _device(generator)
        within = torch.rand(n, 2, generator=generator, device=device)
        column = torch.randint(4, (n,), generator=generator, device=device)
        half = torch.randint(2, (n,), generator=generator, device=device)
        row = 2 * half + column % 2
        return 2 * (torch.stack([column, row], dim=-1) + within) - 4


#: The exact densities of the plane, by name.
DENSITIES: dict[str, Density] = {d.name: d for d in (EightGaussians(), Rings(), Checkerboard())}


def density(name: str) -> Density:
    """Look a density up by its name.

    Raises:
        ValueError: The name is not known; the message lists the names and the nearest one.

    Example:
        >>> density("rings").symmetry
        'O(2)'
    """
    if name in DENSITIES:
        return DENSITIES[name]
    near = difflib.get_close_matches(name, DENSITIES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown density {name!r}: expected one of {sorted(DENSITIES)}{hint}")
