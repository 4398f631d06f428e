"""Invariant potentials on a torus whose Hessian stays above -1 by construction."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import TorusAction
from pyro_gflows.groups.torus_translations import whole_rows
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.potential import Potential
from pyro_gflows.nn.torus_frequencies import frequency_images, one_of_each_orbit
from pyro_gflows.numerics.integer_lattices import Row, in_lattice
from pyro_gflows.numerics.spectral import largest_eigenvalue_bound
from pyro_gflows.serialization.registry import registered

__all__ = ["TorusPotential", "poisson_wave"]

_SMALLEST_RADIUS = 1e-3


def poisson_wave(angle: Tensor, radius: Tensor) -> tuple[Tensor, Tensor]:
    r"""An odd wave of an angle whose slope is never below -1 and may be large and positive; and its slope.

    .. math:: f_r(u) = \frac{1 + r}{r} \arctan\frac{r \sin u}{1 - r \cos u}, \qquad
        f_r'(u) = \frac{1 + r}{2 r} \Big(\frac{1 - r^2}{1 - 2 r \cos u + r^2} - 1\Big)
        \in \Big[-1, \frac{1 + r}{1 - r}\Big]

    The fraction is the Poisson kernel, whose mean is 1. For small r the wave is sin u; for r near 1 it rises steeply
    at u = 0 and falls slowly elsewhere.

    Args:
        angle: u, in radians.
        radius: r, between 0 and 1, of a shape that broadcasts with the angles.

    Example:
        >>> value, slope = poisson_wave(torch.tensor([0.0, math.pi]), torch.tensor(0.5))
        >>> slope.tolist()
        [3.0, -1.0]
    """
    cosine = angle.cos()
    value = (1 + radius) / radius * torch.atan2(radius * angle.sin(), 1 - radius * cosine)
    slope = (1 + radius) * (cosine - radius) / (1 - 2 * radius * cosine + radius.square())
    return value, slope


@registered
class TorusPotential(Potential):
    r"""A sum of waves of integer combinations of angles, averaged over a group, with a Hessian above -1.

    It is a trigonometric potential for :class:`~pyro_gflows.transforms.GGradient`, which is a bijection of the torus
    for every weight, without a split of the angles. It serves groups under which no split of the angles is invariant,
    such as D4 on two angles.

    .. math:: \nabla V(x) = \sum_k \sum_j \frac{w_{kj}}{m_k \lambda_k} \sum_{i=1}^{m_k} f_{r_{kj}}(\langle k_i,
        x\rangle + b_i - \varphi_{kj})\; k_i

    The outer sum is over some integer vectors k (frequencies). The :math:`\langle k_i, x\rangle + b_i` are the
    :math:`m_k` images of :math:`\langle k, x\rangle` under the group, so that V is invariant; :math:`b_i` is not 0 for
    a reflection together with a translation (glide). :func:`~pyro_gflows.nn.poisson_wave` describes :math:`f_r`, whose
    slope is at least -1. With :math:`A_k` the mean of :math:`k_i k_i^T` and :math:`\lambda_k` its largest eigenvalue,
    the Hessian is then at least

    .. math:: -S = -\sum_k \sum_j w_{kj} A_k / \lambda_k,

    in the sense of symmetric matrices. The positive weights :math:`w_{kj}` are divided by 1 plus the largest eigenvalue
    of S (:func:`~pyro_gflows.numerics.largest_eigenvalue_bound`, which has all derivatives) and multiplied by
    ``bound``, so that no eigenvalue of the Hessian is below ``-bound``. There is no such bound above: the map may
    stretch strongly where the waves are steep.

    Args:
        action: How the group acts on angles.
        frequencies: How many frequencies are taken, the shortest ones; or the frequencies themselves, as vectors of
            integers. Images under the group come with a frequency.
        waves: The number of waves for each frequency, each with a weight, a phase and a radius to train.
        bound: The number c below 1 such that no eigenvalue of the Hessian is below -c.
        max_slope: The largest slope (1 + r) / (1 - r) of a wave.

    Raises:
        TypeError: If the action is no TorusAction.
        ValueError: If a frequency is no vector of integers, or translations of the group change its wave; or if an
            argument is out of its range.

    Example:
        >>> potential = TorusPotential(TorusAction.point_group("D4"), frequencies=3, waves=2)
        >>> gradient, hessian = potential.call_and_jacobian(torch.zeros(5, 2))
        >>> gradient.shape, hessian.shape, sum(weight.numel() for weight in potential.parameters())
        (torch.Size([5, 2]), torch.Size([5, 2, 2]), 18)
    """

    action: TorusAction
    orbit: Tensor

    def __init__(
        self,
        action: TorusAction,
        *,
        frequencies: int | Sequence[Sequence[int]] = 6,
        waves: int = 4,
        bound: float = 0.99,
        max_slope: float = 50.0,
    ) -> None:
        super().__init__()
        if not isinstance(action, TorusAction):
            raise TypeError(f"expected a TorusAction, got {type(action).__name__}")
        if waves < 1 or not 0 < bound < 1 or not 1 < max_slope < math.inf:
            raise ValueError(
                f"expected waves >= 1, 0 < bound < 1, a finite max_slope > 1, got {waves}, {bound}, {max_slope}"
            )
        self.action, self.bound, self.max_slope = action, bound, max_slope
        chosen = _chosen(action, frequencies)
        images = [frequency_images(action, k) for k in chosen]
        moments = torch.stack([k.mT @ k / len(k) for k, _ in images])
        largest = torch.linalg.eigvalsh(moments)[:, -1]
        self.phased = FixedBasis(torch.cat([torch.cat([k, phase[:, None]], 1) for k, phase in images]))
        self.outer = FixedBasis(torch.cat([k / (len(k) * top) for (k, _), top in zip(images, largest, strict=True)]))
        self.moments = FixedBasis(moments / largest[:, None, None])
        orbit = [index for index, (k, _) in enumerate(images) for _ in range(len(k))]
        self._multiplicity = _least_multiplicity(self.moments.value)
        self.register_buffer("orbit", torch.tensor(orbit), persistent=False)
        count = len(chosen)
        self.weight = nn.Parameter(torch.randn(count, waves) - 3.0)
        self.phase = nn.Parameter(2 * math.pi * torch.rand(count, waves))
        self.radius = nn.Parameter(torch.randn(count, waves))

    def forward(self, x: Tensor) -> Tensor:
        return self._evaluated(x)[0]

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, slopes, k, outer = self._evaluated(x)
        products = (outer[:, :, None] * k[:, None, :]).flatten(1)
        return value, (slopes @ products).unflatten(-1, (x.shape[-1], x.shape[-1]))

    def curvature_bound(self) -> Tensor:
        weights = self._weights().sum(1)
        return torch.linalg.eigvalsh((weights[:, None, None] * self.moments(weights)).sum(0))[-1]

    def _weights(self) -> Tensor:
        """The weights of all waves, scaled such that the Hessian is at least ``-bound``."""
        positive = nn.functional.softplus(self.weight)
        lowest = (positive.sum(1)[:, None, None] * self.moments(positive)).sum(0)
        return positive * (self.bound / (1 + largest_eigenvalue_bound(lowest, multiplicity=self._multiplicity)))

    def _radii(self) -> Tensor:
        largest = (self.max_slope - 1) / (self.max_slope + 1)
        return _SMALLEST_RADIUS + (largest - _SMALLEST_RADIUS) * self.radius.sigmoid()

    def _evaluated(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The gradient, the slope of each image, and the vectors inside and outside of the waves."""
        k, phase = self.phased(x).tensor_split([-1], dim=1)
        outer = self.outer(x)
        weights, phases, radii = (
            each.index_select(0, self.orbit) for each in (self._weights(), self.phase, self._radii())
        )
        angles = (x @ k.mT).unsqueeze(-1) + (phase - phases)
        values, slopes = poisson_wave(angles, radii)
        return (values * weights).sum(-1) @ outer, (slopes * weights).sum(-1), k, outer

    def extra_repr(self) -> str:
        count, waves = self.weight.shape
        return f"{count} frequencies x {waves} waves, curvature above {-self.bound:g}, {self.action}"


def _least_multiplicity(moments: Tensor) -> int:
    """How often each eigenvalue of every positive combination of some matrices occurs at least."""
    generator = torch.Generator().manual_seed(0)
    weights = 1 + torch.rand(len(moments), dtype=torch.float64, generator=generator)
    eigenvalues = torch.linalg.eigvalsh((weights[:, None, None] * moments.double().cpu()).sum(0)).tolist()
    counts = [
        sum(math.isclose(each, other, rel_tol=1e-9, abs_tol=1e-9) for other in eigenvalues) for each in eigenvalues
    ]
    return min(counts)


def _chosen(action: TorusAction, frequencies: int | Sequence[Sequence[int]]) -> tuple[Row, ...]:
    if isinstance(frequencies, int):
        return one_of_each_orbit(action, frequencies)
    chosen = tuple(tuple(row) for row in whole_rows(frequencies))
    for k in chosen:
        if len(k) != action.numel or not any(k):
            raise ValueError(f"expected frequencies of {action.numel} integers that are not all 0, got {list(k)}")
        if not in_lattice(action.fixed_combinations, k):
            raise ValueError(
                f"expected frequencies that the translations of {action} fix, which are the integer combinations of "
                f"{[list(row) for row in action.fixed_combinations]}, got {list(k)}"
            )
    return chosen
