"""Symmetrized: any distribution, made invariant by an average over a finite group."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from pyro_gflows.actions import LinearAction, ParticleAction
from pyro_gflows.actions.requirements import require_flat
from pyro_gflows.distributions.supports import ValidatesEvents, is_real
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.tracing import is_tracing
from pyro_gflows.numerics.transforms_active import transforming
from pyro_gflows.serialization.registry import registered

__all__ = ["Symmetrized"]

_NEGLIGIBLE = 50.0  # a term that is this many nats below the largest one is rounded away in float64


class _OrbitOf(constraints.Constraint):
    """The events with at least one image under the group that satisfies a constraint."""

    def __init__(self, constraint: constraints.Constraint, action: LinearAction | ParticleAction) -> None:
        self.constraint, self.action = constraint, action
        self.event_dim = action.event_dim
        self.is_discrete = constraint.is_discrete

    def check(self, value: Tensor) -> Tensor:
        return self.constraint.check(self.action.act_all(value)).any(0)


@registered
class Symmetrized(ValidatesEvents, TorchDistribution):
    r"""A distribution averaged over a finite group, which is invariant whatever the original distribution is.

    A draw is a draw of the original distribution (the base), on which a random group element acts. The density is the
    average :math:`\log p(x) = \log \frac{1}{|G|} \sum_g p_0(\rho(g)^{-1} x)`, computed exactly with |G| evaluations of
    the density :math:`p_0` of the base. Draws are reparametrized where the draws of the base are (the random element is
    constant for gradients).

    Args:
        base: Any distribution of events on which the action can act. If it has a ``module``, or transforms that are
            modules, these are registered in ``module``. A distribution of plain tensors stays on their device.
        action: How the finite group acts on an event.
        validate_args: Whether arguments and values are checked, as for every torch distribution.

    Raises:
        TypeError: ``base`` is not a distribution, or ``action`` is neither a LinearAction nor a ParticleAction.
        ValueError: The group is infinite, or the event shape of the base is not that of the action.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gflows.actions import VectorAction
        >>> corner = dist.Normal(torch.tensor([2.0, 1.0]), 0.1).to_event(1)
        >>> eight = Symmetrized(corner, VectorAction.plane("D4"))
        >>> eight.log_prob(torch.tensor([[2.0, 1.0], [-1.0, 2.0]])).diff().abs().item() < 1e-5
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it as an instance attribute)

    def __init__(
        self, base: Distribution, action: LinearAction | ParticleAction, *, validate_args: bool | None = None
    ) -> None:
        if not isinstance(base, Distribution):
            raise TypeError(f"expected a distribution, got {type(base).__name__}; for a flow, give flow.dist")
        require_flat(action)
        if base.event_shape != action.event_shape:
            raise ValueError(
                f"expected a base of event shape {tuple(action.event_shape)} for {action}, "
                f"got {tuple(base.event_shape)}; for a batch of independent coordinates use base.to_event(n)"
            )
        self._log_order = math.log(require_enumerable(action.group).order)
        self.has_rsample = bool(base.has_rsample)
        self.base = base
        self.action = action
        self.module = nn.ModuleList(_modules_of(base))
        super().__init__(base.batch_shape, base.event_shape, validate_args=validate_args)

    @property
    def support(self) -> constraints.Constraint:
        support: Any = self.base.support
        return support if is_real(support) else _OrbitOf(support, self.action)

    def expand(self, batch_shape: Sequence[int], _instance: Symmetrized | None = None) -> Symmetrized:
        """The same distribution, with the same module, of another batch shape.

        Args:
            batch_shape: The new batch shape.
        """
        new = copy.copy(self) if _instance is None else _instance
        new.base = self.base.expand(torch.Size(batch_shape))
        new._batch_shape = torch.Size(batch_shape)
        return new

    @full_precision
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self._act(self.base.sample(torch.Size(sample_shape)))

    @full_precision
    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self._act(self.base.rsample(torch.Size(sample_shape)))

    def _act(self, x: Tensor) -> Tensor:
        """The images of events under random group elements."""
        return self.action.act_each(self.action.sample(x.shape[: x.ndim - self.action.event_dim]), x)

    @full_precision
    def log_prob(self, value: Tensor) -> Tensor:
        self.action.check_event(value, "value")
        if self._validate_args:
            self._validate_sample(value)
        batch_shape = torch.broadcast_shapes(value.shape[: value.ndim - self.action.event_dim], self.batch_shape)
        orbit = self.action.act_all(value.expand(batch_shape + self.event_shape))
        support: Any = self.base.support
        if is_real(support):
            return self._scores(orbit).logsumexp(0) - self._log_order
        inside = support.check(orbit)
        # outside its support the base may raise, or have NaN gradients: there it scores an image inside instead
        first = inside.long().argmax(0)[(None, ..., *[None] * self.action.event_dim)]
        safe = torch.where(
            inside[(..., *[None] * self.action.event_dim)], orbit, orbit.gather(0, first.expand(1, *orbit.shape[1:]))
        )
        return self.base.log_prob(safe).masked_fill(~inside, -math.inf).logsumexp(0) - self._log_order

    def _scores(self, orbit: Tensor) -> Tensor:
        """The scores of all images under the base, where gradients flow only through terms that are not negligible."""
        if not torch.is_grad_enabled() or self.batch_shape or is_tracing() or transforming():
            return self.base.log_prob(orbit)
        with torch.no_grad():
            scores = self.base.log_prob(orbit)
        counts = ~(scores < scores.amax(0) - _NEGLIGIBLE)
        if bool(counts.all()):
            return self.base.log_prob(orbit)
        return scores.new_full(scores.shape, -math.inf).masked_scatter(counts, self.base.log_prob(orbit[counts]))

    @property
    @full_precision
    def mean(self) -> Tensor:
        return self.action.act_all(self.base.mean).mean(0)

    @property
    @full_precision
    def variance(self) -> Tensor:
        r"""The variance of each coordinate.

        It is the average over g of the variance of :math:`\rho(g) x`, plus the variance over g of its mean.

        Raises:
            NotImplementedError: The group mixes coordinates, and the base does not give the covariance that this needs.
        """
        within = self._variance_of_images().mean(0)
        return within + self.action.act_all(self.base.mean).var(0, correction=0)

    def _variance_of_images(self) -> Tensor:
        """The variances of the images of x under all elements, shape ``(|G|, *batch_shape, *event_shape)``."""
        if isinstance(self.action, ParticleAction):
            raise NotImplementedError(f"the variance under {self.action} is not known; estimate it from draws")
        if self.action.is_signed_permutation:
            return self.action.absolute().act_all(self.base.variance)
        matrices = self.action.matrix(self.action.elements()).to(self.base.mean)
        matrices = matrices.reshape(len(matrices), *[1] * len(self.batch_shape), *matrices.shape[1:])
        if _is_independent(self.base):
            variance = self.base.variance.flatten(-self.action.event_dim)
            images = (matrices.square() @ variance[..., None]).squeeze(-1)
        elif isinstance(covariance := getattr(self.base, "covariance_matrix", None), Tensor):
            images = (matrices @ covariance @ matrices.mT).diagonal(dim1=-2, dim2=-1)
        else:
            raise NotImplementedError(
                f"{self.action} mixes coordinates, so the variance needs the base's covariance_matrix, which "
                f"{type(self.base).__name__} does not give; estimate it from draws"
            )
        return images.expand(-1, *self.batch_shape, -1).unflatten(-1, self.event_shape)

    def __repr__(self) -> str:
        return f"Symmetrized({self.base}, {self.action})"


def _is_independent(base: Distribution) -> bool:
    """Whether the coordinates of an event are independent by construction."""
    return isinstance(base, Independent) and len(base.base_dist.event_shape) == 0


def _modules_of(base: Any) -> list[nn.Module]:
    """The modules that hold the parameters of a distribution, so far as they can be found."""
    if isinstance(module := getattr(base, "module", None), nn.Module):
        return [module]
    inner = _modules_of(base.base_dist) if hasattr(base, "base_dist") else []
    return inner + [transform for transform in getattr(base, "transforms", []) if isinstance(transform, nn.Module)]
