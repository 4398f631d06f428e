"""Random log-dets, whose gradient is w^T dJ eps with w held fixed."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Product, pushforward
from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.residual_map import ResidualMap
from pyro_gflows.numerics.tracing import uncompiled
from pyro_gflows.numerics.transforms_active import forward_levels, transforming

__all__ = ["RandomEstimate", "RandomLogDet", "row_dot"]


class RandomEstimate(NamedTuple):
    """An estimate of the log-det from a random probe, without its gradient.

    Attributes:
        log_det: The estimate, of shape ``batch_shape``.
        held: The vector w, an estimate of (I + J^T)^-1 eps, of the shape of the probe.
        probe: The probe eps, of shape ``batch_shape + event_shape``.

    Example:
        >>> RandomEstimate(torch.zeros(2), torch.ones(2, 3), torch.ones(2, 3)).held.shape
        torch.Size([2, 3])
    """

    log_det: Tensor
    held: Tensor
    probe: Tensor


class RandomLogDet(LogDet):
    """The base class of estimators that draw a probe in training, and hold a vector w fixed in their gradient.

    A subclass writes ``_random``, ``require_bound`` and ``outside_training``, the estimator that stands in otherwise.
    """

    @property
    @abstractmethod
    def outside_training(self) -> LogDet:
        """The estimator that is used outside training."""

    @abstractmethod
    def require_bound(self, lipschitz: float) -> None:
        """Raise an error if the Lipschitz bound is too large; it is called before f is.

        Args:
            lipschitz: The bound.
        """

    @abstractmethod
    def _random(self, residual_map: ResidualMap, x: Tensor, product: Product) -> RandomEstimate:
        """The log-det, w and eps for a random probe.

        Args:
            residual_map: The map, with its Lipschitz bound.
            x: The input, of shape ``batch_shape + event_shape``.
            product: The map v -> J^T v at x.
        """

    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        if not residual_map.training:
            return self.outside_training.estimate(residual_map, x, create_graph=create_graph)
        return self._in_training(residual_map, x, create_graph)

    @uncompiled
    def _in_training(self, residual_map: ResidualMap, x: Tensor, create_graph: bool) -> tuple[Tensor, Tensor]:
        value, product, found = self._drawn(residual_map, x)
        return value, _with_held_gradient(residual_map, x, product, found, create_graph=create_graph)

    def rehearse(self, residual_map: ResidualMap, x: Tensor) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, ...]]:
        """The results without a graph; in training it keeps w and the signs of the probe.

        Args:
            residual_map: The map, with its Lipschitz bound.
            x: The input, of shape ``batch_shape + event_shape``.
        """
        if not residual_map.training:
            return self.outside_training.rehearse(residual_map, x)
        value, _, (log_det, held, probe) = self._drawn(residual_map, x)
        return (value, log_det), (held, probe > 0)

    def replay(self, residual_map: ResidualMap, x: Tensor, *kept: Tensor) -> tuple[Tensor, Tensor]:
        """The results with a graph; in training f(x) and w^T J eps, without estimating the log-det again.

        Args:
            residual_map: The map, with its Lipschitz bound.
            x: The input, of shape ``batch_shape + event_shape``.
            kept: The tensors that ``rehearse`` asked to keep.
        """
        if not residual_map.training:
            return self.outside_training.replay(residual_map, x, *kept)
        held, positive = kept
        value, product = residual_map.f.call_and_pullback(x)
        return value, _surrogate(product, residual_map.event_dim, held, 2 * positive.to(x.dtype) - 1)

    def _drawn(self, residual_map: ResidualMap, x: Tensor) -> tuple[Tensor, Product, RandomEstimate]:
        self.require_bound(residual_map.lipschitz)
        value, product = residual_map.f.call_and_pullback(x)
        return value, product, self._random(residual_map, x, product)


def _surrogate(product: Product, event_dim: int, held: Tensor, probe: Tensor) -> Tensor:
    """The product w^T J eps, row by row.

    Args:
        product: The map v -> J^T v.
        event_dim: The number of event dimensions.
        held: The vector w.
        probe: The probe eps.
    """
    return row_dot(product(held, create_graph=True), probe, event_dim)


def _with_held_gradient(
    residual_map: ResidualMap, x: Tensor, product: Product, found: RandomEstimate, *, create_graph: bool
) -> Tensor:
    """The log-det of a random estimate, with the gradient of w^T J eps at a fixed w.

    Args:
        residual_map: The map.
        x: The point.
        product: The map v -> J^T v at x.
        found: The estimate, which has its own derivatives inside ``torch.func`` and forward mode only.
        create_graph: Whether the result is differentiable.
    """
    log_det, held, probe = found
    if forward_levels() > 1:
        # torch switches forward mode off inside the jvp of _Held; the estimate's own derivatives are unbiased as well
        return log_det
    if transforming():
        linear = _Held.apply(held, pushforward(residual_map.f, x, probe)).flatten(x.dim() - residual_map.event_dim)
        total = linear.sum(-1)
        return log_det.detach() + (total - total.detach())
    if create_graph:
        total = _surrogate(product, residual_map.event_dim, held, probe)
        if total.requires_grad:
            # Subtracting the value from itself is exactly zero: the surrogate gives its gradient only.
            log_det = log_det + (total - total.detach())
            log_det.register_hook(_first_order_only)
    return log_det


class _Held(torch.autograd.Function):
    """The product w u, in whose first derivative w is held fixed, while second derivatives know that w varies.

    So the derivative of the estimate is w^T dJ eps at every point, and further derivatives by torch.func are unbiased
    estimates as well.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(w: Tensor, u: Tensor) -> Tensor:
        return w * u

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0])
        ctx.save_for_forward(inputs[0])

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[None, Tensor]:
        (w,) = ctx.saved_tensors
        return None, gradient * w

    @staticmethod
    def jvp(ctx: Any, w_tangent: Tensor, u_tangent: Tensor) -> Tensor:
        (w,) = ctx.saved_tensors
        return w * u_tangent


def row_dot(first: Tensor, second: Tensor, event_dim: int) -> Tensor:
    """The inner product of events, row by row.

    Args:
        first: Events of shape ``batch_shape + event_shape``.
        second: Events of the same shape.
        event_dim: The number of event dimensions.

    Example:
        >>> row_dot(torch.ones(2, 3), torch.ones(2, 3), 1)
        tensor([3., 3.])
    """
    return (first * second).flatten(first.dim() - event_dim).sum(-1)


def _first_order_only(gradient: Tensor) -> None:
    if torch.is_grad_enabled():
        raise RuntimeError(
            "expected a first derivative of a random log-det, got create_graph=True: its second derivative is "
            "not unbiased; call eval() on the flow, which switches to the deterministic estimator"
        )
