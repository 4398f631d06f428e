"""InvariantStudentT: an invariant base with heavy tails."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.distributions import Chi2

from pyro_gflows.actions import LinearAction, ParticleAction
from pyro_gflows.distributions.spherical import SphericalBase
from pyro_gflows.serialization.registry import registered

__all__ = ["InvariantStudentT"]


@registered
class InvariantStudentT(SphericalBase):
    r"""A multivariate t distribution that is invariant under an action.

    This is a base for posteriors with heavy tails. A flow whose slopes are bounded cannot make heavy tails from a
    normal distribution. With the mean :math:`\mu`, the scale matrix :math:`L L^T`, the point
    :math:`z = L^{-1}(x - \mu)` in R^n, and :math:`\nu` degrees of freedom,

    .. math:: \log p(z) = \log\Gamma(\tfrac{\nu+n}2) - \log\Gamma(\tfrac\nu2) - \tfrac n2 \log \pi\nu
        - \tfrac{\nu+n}2 \log(1 + |z|^2/\nu)

    and :math:`\log p(x) = \log p(z) - \log|\det L|`. As :math:`\nu` grows, it approaches :class:`InvariantNormal`.

    Args:
        action: How the group acts on an event.
        df: The degrees of freedom :math:`\nu`; the variance is finite for :math:`\nu > 2`.
        options: ``covariance`` (the form of the scale matrix :math:`L L^T`), ``mean`` and ``validate_args``, as for
            :class:`InvariantNormal`.

    Raises:
        TypeError: ``action`` is neither a LinearAction nor a ParticleAction.
        ValueError: ``df`` is not positive and finite, the covariance is unknown, or ``mean=True`` where every invariant
            mean is 0.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> base = InvariantStudentT(VectorAction.plane("D8"), df=3.0)
        >>> base, base.rsample((5,)).shape
        (InvariantStudentT(VectorAction(D8 on R^2: defining), covariance='isotropic', df=3), torch.Size([5, 2]))
    """

    def __init__(self, action: LinearAction | ParticleAction, *, df: float = 4.0, **options: Any) -> None:
        if not 0 < df < math.inf:
            raise ValueError(f"expected positive, finite degrees of freedom, got {df}")
        self.df = float(df)
        super().__init__(action, **options)

    def standard_draw(self, shape: torch.Size, reference: Tensor) -> Tensor:
        normal = torch.randn(*shape, self.size, dtype=reference.dtype, device=reference.device)
        chi2 = Chi2(torch.full_like(reference, self.df)).sample(shape)
        return normal * (self.df / chi2).sqrt()[..., None]

    def standard_log_prob(self, z: Tensor) -> Tensor:
        kernel = 0.5 * (self.df + self.size) * torch.log1p(z.square().sum(-1) / self.df)
        return -self._log_normalizer() - kernel

    def _log_normalizer(self) -> float:
        half, n = 0.5 * self.df, self.size
        return math.lgamma(half) - math.lgamma(half + 0.5 * n) + 0.5 * n * math.log(math.pi * self.df)

    def standard_variance(self) -> float:
        return self.df / (self.df - 2) if self.df > 2 else math.inf

    def standard_entropy(self) -> float:
        halves = torch.tensor([0.5 * (self.df + self.size), 0.5 * self.df], dtype=torch.float64)
        high, low = torch.digamma(halves).tolist()
        return self._log_normalizer() + 0.5 * (self.df + self.size) * (high - low)

    def _described(self) -> str:
        return f"{super()._described()}, df={self.df:g}"
