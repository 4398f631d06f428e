"""The gradient of a random log-det, w^T dJ eps with w held fixed."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Product, pushforward
from pyro_gflows.numerics.residual_map import ResidualMap
from pyro_gflows.numerics.transforms_active import forward_levels, transforming

__all__ = ["RandomEstimate", "row_dot", "surrogate", "with_held_gradient"]


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


def surrogate(product: Product, event_dim: int, held: Tensor, probe: Tensor) -> Tensor:
    """The product w^T J eps, row by row.

    Args:
        product: The map v -> J^T v.
        event_dim: The number of event dimensions.
        held: The vector w.
        probe: The probe eps.
    """
    return row_dot(product(held, create_graph=True), probe, event_dim)


def with_held_gradient(
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
        total = surrogate(product, residual_map.event_dim, held, probe)
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
