"""Exact densities on the plane."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.targets.exact_density import Density, device_of

__all__ = ["PLANAR", "Checkerboard", "EightGaussians", "Rings"]


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
        device = device_of(generator)
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
        device = device_of(generator)
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
        device = device_of(generator)
        within = torch.rand(n, 2, generator=generator, device=device)
        column = torch.randint(4, (n,), generator=generator, device=device)
        half = torch.randint(2, (n,), generator=generator, device=device)
        row = 2 * half + column % 2
        return 2 * (torch.stack([column, row], dim=-1) + within) - 4


PLANAR: tuple[Density, ...] = (EightGaussians(), Rings(), Checkerboard())
