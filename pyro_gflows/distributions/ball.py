"""InvariantUniformBall: the uniform distribution on a ball or an invariant ellipsoid."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.distributions.spherical import SphericalBase
from pyro_gflows.serialization.registry import registered

__all__ = ["InvariantUniformBall"]


@registered
class InvariantUniformBall(SphericalBase):
    r"""The uniform distribution on a ball, or on an ellipsoid that the group maps to itself.

    This is a base for posteriors with bounded support. With :math:`z = L^{-1}(x - \mu)`, the density is uniform where
    :math:`|z| \le \sqrt{n + 2}`, a ball on which the covariance of z is the identity:
    :math:`\log p(z) = -\log V_n - \tfrac n2 \log(n + 2)` inside, where :math:`V_n` is the volume of the unit ball in
    :math:`\mathbb{R}^n`, and :math:`-\infty` outside. The ``support`` of the distribution is all of
    :math:`\mathbb{R}^n`, so that a point outside the ball has a score and raises no error.

    Args:
        action: How the group acts on an event.
        covariance: The form of :math:`L L^T`, as for :class:`InvariantNormal`.
        mean: Whether the mean is learnable, as for :class:`InvariantNormal`.
        validate_args: Whether arguments and values are checked, as for every torch distribution.

    Raises:
        TypeError: ``action`` is neither a LinearAction nor a ParticleAction.
        ValueError: The covariance is unknown, or ``mean=True`` where every invariant mean is 0.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> base = InvariantUniformBall(VectorAction.plane("D8"))
        >>> base.log_prob(torch.tensor([[0.0, 1.9], [0.0, 2.1]])).exp()  # the area is 4 pi
        tensor([0.0796, 0.0000])
    """

    @property
    def _radius(self) -> float:
        return math.sqrt(self.size + 2)

    def standard_draw(self, shape: torch.Size, reference: Tensor) -> Tensor:
        normal = torch.randn(*shape, self.size, dtype=reference.dtype, device=reference.device)
        uniform = torch.rand(*shape, 1, dtype=reference.dtype, device=reference.device)
        return normal * (self._radius * uniform ** (1 / self.size) / normal.norm(dim=-1, keepdim=True))

    def standard_log_prob(self, z: Tensor) -> Tensor:
        # rounding may take a draw near the border to the outside
        border = self.size + 2 + 100 * torch.finfo(z.dtype).eps * (self.size + 2)
        square = z.square().sum(-1)
        return torch.full_like(square, -self.standard_entropy()).masked_fill(square > border, -math.inf)

    def standard_variance(self) -> float:
        return 1.0

    def standard_entropy(self) -> float:
        n = self.size
        return 0.5 * n * math.log(math.pi) - math.lgamma(0.5 * n + 1) + n * math.log(self._radius)
