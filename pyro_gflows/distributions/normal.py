"""InvariantNormal: the normal distributions that are invariant under an action."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.distributions.spherical import SphericalBase
from pyro_gflows.serialization.registry import registered

__all__ = ["InvariantNormal"]


@registered
class InvariantNormal(SphericalBase):
    r"""A normal distribution that is invariant under an action.

    This is the usual base of a flow: an equivariant bijection maps it to an invariant density. The distribution is
    :math:`N(\mu, \Sigma)` of events of n coordinates, with mean :math:`\mu`, covariance :math:`\Sigma` and
    :math:`\rho(g)\mu = \mu` and :math:`\rho(g)\,\Sigma\,\rho(g)^T = \Sigma` for every element g. With :math:`\Sigma = L
    L^T`, :math:`\log p(x) = -\tfrac12 |L^{-1}(x - \mu)|^2 - \log|\det L| - \tfrac n2 \log 2\pi`.

    The parameters live in ``module``, an ``nn.Module`` that a flow registers and that expanded distributions share.

    Args:
        action: How the group acts on an event.
        covariance: The form of :math:`\Sigma`, which starts at the identity. ``"isotropic"`` is the fixed identity.
            ``"isotypic"`` has one learnable scale for each isotypic component, a part of the event that the group does
            not mix with others. ``"full"`` is every covariance that commutes with the action: for each irreducible
            representation, a positive Hermitian matrix with real, complex or quaternionic entries. On images,
            "isotypic" takes no more memory than an event of any size; under translations it is a stationary field with
            a learnable power spectrum.
        mean: Whether the mean is learnable, among the vectors that the group leaves as they are; it starts at 0.
            Otherwise the mean is 0.
        validate_args: Whether arguments and values are checked, as for every torch distribution.

    Raises:
        TypeError: ``action`` is neither a LinearAction nor a ParticleAction.
        ValueError: The covariance is unknown, or ``mean=True`` where every invariant mean is 0 (the action has no
            trivial component).

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> base = InvariantNormal(VectorAction.plane("D8", copies=2), covariance="full")
        >>> base.rsample((5,)).shape, base.log_prob(torch.zeros(3, 4)).shape
        (torch.Size([5, 4]), torch.Size([3]))
        >>> sum(parameter.numel() for parameter in base.module.parameters())
        3
    """

    def standard_draw(self, shape: torch.Size, reference: Tensor) -> Tensor:
        return torch.randn(*shape, self.size, dtype=reference.dtype, device=reference.device)

    def standard_log_prob(self, z: Tensor) -> Tensor:
        return -0.5 * z.square().sum(-1) - 0.5 * self.size * math.log(2 * math.pi)

    def standard_variance(self) -> float:
        return 1.0

    def standard_entropy(self) -> float:
        return 0.5 * self.size * (1 + math.log(2 * math.pi))
