"""SphericalBase: invariant distributions made from a density that depends on |z| alone by a linear map."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, ParticleAction
from pyro_gflows.actions.requirements import require_flat
from pyro_gflows.distributions.factors import FACTORS, InvariantMean
from pyro_gflows.distributions.invariant_base import InvariantBase
from pyro_gflows.numerics.precision import full_precision, refuse_low
from pyro_gflows.spaces import Euclidean, MeanFree, require_space

__all__ = ["SphericalBase"]


class _BaseModule(nn.Module):
    """The parameters of the distribution, and the dtype and device of its draws."""

    reference: Tensor

    def __init__(self, action: LinearAction, covariance: str, mean: bool) -> None:
        super().__init__()
        self.register_buffer("reference", torch.zeros(()), persistent=False)
        self.factor = FACTORS[covariance](action)
        self.mean = InvariantMean(action) if mean else None

    def location(self, like: Tensor) -> Tensor:
        """The mean, or 0, in a shape that broadcasts with ``(..., numel)``.

        Args:
            like: A tensor with the wanted dtype and device.
        """
        return like.new_zeros(()) if self.mean is None else self.mean(like)


class SphericalBase(InvariantBase):
    r"""The distribution of :math:`x = L z + \mu`, where the density of z in R^n is a function of |z|.

    This is the base class of invariant bases. The ready-made ones are :class:`InvariantNormal`, the usual choice,
    :class:`InvariantStudentT` for heavy tails, and :class:`InvariantUniformBall` for bounded support. The matrix L and
    the mean :math:`\mu` are parameters. The distribution of x is invariant if :math:`\Sigma = L L^T` commutes
    with the group and the group leaves :math:`\mu` as it is. Its density is
    :math:`\log p(x) = \log p(z) - \log|\det L|`. A subclass writes ``standard_draw``, ``standard_log_prob``,
    ``standard_variance`` and ``standard_entropy``, which describe z.

    The parameters live in ``module``, an ``nn.Module`` that a flow registers and that expanded distributions share.

    Args:
        action: How the group acts on an event.
        covariance: The form of :math:`\Sigma`, which starts at the identity: ``"isotropic"``, ``"isotypic"`` or
            ``"full"``, as for :class:`InvariantNormal`.
        mean: Whether the mean is learnable, among the vectors that the group leaves as they are; it starts at 0.
            Otherwise the mean is 0.
        validate_args: Whether arguments and values are checked, as for every torch distribution.

    Raises:
        TypeError: ``action`` is neither a LinearAction nor a ParticleAction.
        ValueError: The covariance is unknown, or ``mean=True`` where every invariant mean is 0.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> from pyro_gflows.distributions import InvariantNormal
        >>> base = InvariantNormal(VectorAction.plane("D4"))
        >>> isinstance(base, SphericalBase), base.standard_variance()
        (True, 1.0)
    """

    has_rsample = True
    action: LinearAction | ParticleAction

    def __init__(
        self,
        action: LinearAction | ParticleAction,
        *,
        covariance: str = "isotropic",
        mean: bool = False,
        validate_args: bool | None = None,
    ) -> None:
        require_flat(action)
        require_space(action.space, (Euclidean, MeanFree), type(self).__name__)
        if covariance not in FACTORS:
            raise ValueError(f"expected covariance to be one of {sorted(FACTORS)}, got {covariance!r}")
        self.action = action
        self.covariance = covariance
        self.module = _BaseModule(action.coordinates, covariance, mean)
        super().__init__(torch.Size(), action.event_shape, validate_args=validate_args)

    # -- what a subclass writes ---------------------------------------------------------------------------------------
    def standard_draw(self, shape: torch.Size, reference: Tensor) -> Tensor:
        """Draws of z, shape ``shape + (size,)``.

        Args:
            shape: The batch shape of the draws.
            reference: A tensor with the wanted dtype and device.
        """
        raise NotImplementedError

    def standard_log_prob(self, z: Tensor) -> Tensor:
        """The log-density log p(z), shape ``z.shape[:-1]``.

        Args:
            z: Points, shape ``(..., size)``.
        """
        raise NotImplementedError

    def standard_variance(self) -> float:
        """The variance of one coordinate of z."""
        raise NotImplementedError

    def standard_entropy(self) -> float:
        """The entropy of z."""
        raise NotImplementedError

    # -- torch's Distribution -----------------------------------------------------------------------------------------
    @full_precision
    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        shape = self._extended_shape(torch.Size(sample_shape))
        batch = shape[: len(shape) - self.action.event_dim]
        refuse_low(self.module.reference, "a base")
        z = self.standard_draw(batch, self.module.reference)
        x = self.module.factor(z)
        return self.action.from_coordinates(x if self.module.mean is None else x + self.module.location(z))

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        self._check_value(value)
        log_prob = self._log_prob_of_vectors(self.action.to_coordinates(value))
        if not self.batch_shape:
            return log_prob
        return log_prob.expand(torch.broadcast_shapes(log_prob.shape, self.batch_shape))

    def _log_prob_of_vectors(self, x: Tensor) -> Tensor:
        if self.module.mean is not None:
            x = x - self.module.location(x)
        if self.covariance == "isotropic":
            return self.standard_log_prob(x)
        factor = self.module.factor
        return self.standard_log_prob(factor.solve(x)) - factor.log_det().to(x)

    @property
    def size(self) -> int:
        """The number of coordinates of z: the dimension of the space of the events."""
        return self.action.space.dimension

    @property
    @full_precision
    def mean(self) -> Tensor:
        mean = self.module.location(self.module.reference).expand(self.size)
        return self.action.from_coordinates(mean).expand(self._extended_shape())

    @property
    def variance(self) -> Tensor:
        if self.covariance == "isotropic" and self.size == self.action.numel:
            return torch.full_like(self.mean, self.standard_variance())
        return self.covariance_matrix.diagonal().reshape(self.event_shape).expand(self._extended_shape())

    @property
    @full_precision
    def covariance_matrix(self) -> Tensor:
        """The covariance of the flattened event, shape ``(numel, numel)``."""
        reference = self.module.reference
        columns = self.module.factor(torch.eye(self.size, dtype=reference.dtype, device=reference.device))
        columns = self.action.from_coordinates(columns).flatten(1)
        return self.standard_variance() * columns.T @ columns

    @full_precision
    def entropy(self) -> Tensor:
        log_det = self.module.factor.log_det().to(self.module.reference)
        return (self.standard_entropy() + log_det).expand(self.batch_shape)

    def _described(self) -> str:
        mean = "" if self.module.mean is None else ", mean=True"
        return f"{self.action}, covariance={self.covariance!r}{mean}"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._described()})"
