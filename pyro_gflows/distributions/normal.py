"""InvariantNormal: the Gaussians that an action leaves alone."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import constraints

from pyro_gflows.actions import GroupAction
from pyro_gflows.distributions.factors import FACTORS, InvariantMean
from pyro_gflows.registry import registered

__all__ = ["InvariantNormal"]


class _NormalModule(nn.Module):
    """All numbers of the distribution, and the dtype and device it draws in."""

    reference: Tensor

    def __init__(self, action: GroupAction, covariance: str, mean: bool) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(()), persistent=False)
        self.factor = FACTORS[covariance](action)
        self.mean = InvariantMean(action) if mean else None

    def location(self, like: Tensor) -> Tensor:
        """The mean, or 0, in a shape that broadcasts with (..., numel)."""
        return like.new_zeros(()) if self.mean is None else self.mean(like)


@registered
class InvariantNormal(TorchDistribution):
    r"""A normal distribution that is invariant under an action: :math:`N(\mu, \Sigma)` with
    :math:`\rho(g)\mu = \mu` and :math:`\rho(g)\,\Sigma\,\rho(g)^T = \Sigma`.

    With :math:`\Sigma = L L^T`,
    :math:`\log p(x) = -\tfrac12 |L^{-1}(x - \mu)|^2 - \log|\det L| - \tfrac n2 \log 2\pi`. The numbers live in
    :attr:`module`, an ``nn.Module`` that a flow registers, and that expanded distributions share.

    Args:
        action: how the group moves an event.
        covariance: ``"isotropic"``, the fixed identity; ``"isotypic"``, one learnable scale for each isotypic
            component; ``"full"``, every covariance that commutes with the action: for each irrep a Hermitian positive
            matrix over R, C or H, by the irrep's type. All start at the identity.
        mean: learn a mean on the trivial component (it starts at 0); otherwise the mean is 0.
        validate_args: as for every torch distribution.

    Raises:
        TypeError: ``action`` is not a GroupAction.
        ValueError: an unknown covariance, or ``mean=True`` where the action has no trivial component.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> base = InvariantNormal(VectorAction.plane("D8", copies=2), covariance="full")
        >>> base.rsample((5,)).shape, base.log_prob(torch.zeros(3, 4)).shape
        (torch.Size([5, 4]), torch.Size([3]))
        >>> sum(parameter.numel() for parameter in base.module.parameters())
        3
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it as an instance attribute)
    has_rsample = True

    def __init__(
        self,
        action: GroupAction,
        *,
        covariance: str = "isotropic",
        mean: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        if not isinstance(action, GroupAction):
            raise TypeError(f"expected a GroupAction such as VectorAction.plane('D4'), got {type(action).__name__}")
        if covariance not in FACTORS:
            raise ValueError(f"expected covariance to be one of {sorted(FACTORS)}, got {covariance!r}")
        self.action = action
        self.covariance = covariance
        self.module = _NormalModule(action, covariance, mean)
        super().__init__(torch.Size(), action.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        return constraints.independent(constraints.real, self.action.event_dim)

    def expand(self, batch_shape: Sequence[int], _instance: InvariantNormal | None = None) -> InvariantNormal:
        """The same distribution (and the same module) with another batch shape."""
        batch_shape = torch.Size(batch_shape)
        try:
            torch.empty(self.batch_shape, device="meta").expand(batch_shape)
        except RuntimeError as error:
            raise ValueError(
                f"expected a batch shape that {tuple(self.batch_shape)} expands to, got {tuple(batch_shape)}"
            ) from error
        new = copy.copy(self) if _instance is None else _instance
        new._batch_shape = batch_shape
        return new

    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        reference = self.module.reference
        z = torch.randn(shape, dtype=reference.dtype, device=reference.device).flatten(-self.action.event_dim)
        return (self.module.factor(z) + self.module.location(z)).reshape(shape)

    def log_prob(self, value: Tensor) -> Tensor:
        self.action.check_event(value, "value")
        if self._validate_args:
            self._validate_sample(value)
        x = value.flatten(-self.action.event_dim)
        z = self.module.factor.solve(x - self.module.location(x))
        normaliser = 0.5 * self.action.numel * math.log(2 * math.pi) + self.module.factor.log_det().to(z)
        log_prob = -0.5 * z.square().sum(-1) - normaliser
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    @property
    def mean(self) -> Tensor:
        mean = self.module.location(self.module.reference).expand(self.action.numel)
        return mean.reshape(self.event_shape).expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        if self.covariance == "isotropic":
            return torch.ones_like(self.mean)
        return self.covariance_matrix.diagonal().reshape(self.event_shape).expand(self._extended_shape())

    @property
    def covariance_matrix(self) -> Tensor:
        """The covariance of the flattened event, shape (numel, numel)."""
        reference = self.module.reference
        factor = self.module.factor(torch.eye(self.action.numel, dtype=reference.dtype, device=reference.device)).T
        return factor @ factor.T

    def entropy(self) -> Tensor:
        log_det = self.module.factor.log_det().to(self.module.reference)
        return (0.5 * self.action.numel * (1 + math.log(2 * math.pi)) + log_det).expand(self.batch_shape)

    def __repr__(self) -> str:
        mean = "" if self.module.mean is None else ", mean=True"
        return f"InvariantNormal({self.action}, covariance={self.covariance!r}{mean})"
