"""Symmetrized: any distribution, averaged over a finite group."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor, nn
from torch.distributions import Distribution, Independent, constraints

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.distributions.supports import ValidatesEvents, is_real
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.tracing import is_tracing
from pyro_gflows.numerics.transforms_active import transforming
from pyro_gflows.serialization.registry import registered

__all__ = ["Symmetrized"]

_NEGLIGIBLE = 50.0  # nats below the largest term of a sum, where float64 rounds a term away


class _OrbitOf(constraints.Constraint):
    """Events of which some group image satisfies a constraint."""

    def __init__(self, constraint: constraints.Constraint, action: LinearAction) -> None:
        self.constraint, self.action = constraint, action
        self.event_dim = action.event_dim
        self.is_discrete = constraint.is_discrete

    def check(self, value: Tensor) -> Tensor:
        return self.constraint.check(self.action.act_all(value)).any(0)


@registered
class Symmetrized(ValidatesEvents, TorchDistribution):
    r"""A distribution averaged over a finite group: draw x from the base, and move it by a random element.

    :math:`\log p(x) = \log \frac{1}{|G|} \sum_g p_0(\rho(g)^{-1} x)`, exactly, at |G| evaluations of the base. It is
    invariant whatever the base is. Draws are reparametrized where the base's are (given the element).

    Args:
        base: any distribution of events that the action can move. Where it has its own ``module``, or transforms that
            are modules, they are found in ``module``; a distribution of plain tensors stays where its tensors are.
        action: how the (finite) group moves an event.
        validate_args: as for every torch distribution.

    Raises:
        TypeError: ``base`` is not a distribution, or ``action`` not a LinearAction.
        ValueError: the group is infinite, or the base's event shape is not the action's.

    Example:
        >>> import pyro.distributions as dist
        >>> from pyro_gflows.actions import VectorAction
        >>> corner = dist.Normal(torch.tensor([2.0, 1.0]), 0.1).to_event(1)
        >>> eight = Symmetrized(corner, VectorAction.plane("D4"))
        >>> eight.log_prob(torch.tensor([[2.0, 1.0], [-1.0, 2.0]])).diff().abs().item() < 1e-5
        True
    """

    arg_constraints: dict[str, constraints.Constraint] = {}  # noqa: RUF012  (torch declares it as an instance attribute)

    def __init__(self, base: Distribution, action: LinearAction, *, validate_args: bool | None = None) -> None:
        if not isinstance(base, Distribution):
            raise TypeError(f"expected a distribution, got {type(base).__name__}; of a flow, give flow.dist")
        require_linear(action)
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
        """The same distribution (and the same module) with another batch shape."""
        new = copy.copy(self) if _instance is None else _instance
        new.base = self.base.expand(torch.Size(batch_shape))
        new._batch_shape = torch.Size(batch_shape)
        return new

    @full_precision
    def sample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        with torch.no_grad():
            return self._move(self.base.sample(torch.Size(sample_shape)))

    @full_precision
    def rsample(self, sample_shape: Sequence[int] = torch.Size()) -> Tensor:
        return self._move(self.base.rsample(torch.Size(sample_shape)))

    def _move(self, x: Tensor) -> Tensor:
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
        # the base may raise, or give NaN gradients, outside its support: ask it about an image inside in their place
        first = inside.long().argmax(0)[(None, ..., *[None] * self.action.event_dim)]
        safe = torch.where(
            inside[(..., *[None] * self.action.event_dim)], orbit, orbit.gather(0, first.expand(1, *orbit.shape[1:]))
        )
        return self.base.log_prob(safe).masked_fill(~inside, -math.inf).logsumexp(0) - self._log_order

    def _scores(self, orbit: Tensor) -> Tensor:
        """The base's scores of all images; gradients go through those alone that the sum can tell from 0."""
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
        r"""E over g of the variance of :math:`\rho(g) x`, plus the variance over g of its mean.

        Raises:
            NotImplementedError: a group that mixes coordinates needs the base's covariance, and it gives none.
        """
        within = self._variance_of_images().mean(0)
        return within + self.action.act_all(self.base.mean).var(0, correction=0)

    def _variance_of_images(self) -> Tensor:
        """The variances of the images of x under all elements, shape (|G|, *batch_shape, *event_shape)."""
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
    """The modules that a distribution reads its numbers from, so far as they can be seen."""
    if isinstance(module := getattr(base, "module", None), nn.Module):
        return [module]
    inner = _modules_of(base.base_dist) if hasattr(base, "base_dist") else []
    return inner + [transform for transform in getattr(base, "transforms", []) if isinstance(transform, nn.Module)]
