"""Jacobians of maps that act on each row by itself, by reverse-mode differentiation, and themselves differentiable."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from pyro_gflows.numerics.transforms_active import transforming

__all__ = [
    "Branch",
    "Product",
    "dense_jacobian",
    "event_numel",
    "pullback",
    "pushforward",
    "vector_jacobian_product",
]

#: A map of batch_shape + event_shape to the same shape in which each batch row depends on its own input row only.
Branch = Callable[[Tensor], Tensor]

_CHUNK_ELEMENTS = 2**22


def event_numel(x: Tensor, event_dim: int) -> int:
    """The number of components of an event, which is the product of the last ``event_dim`` sizes.

    Args:
        x: Events of shape ``batch_shape + event_shape``.
        event_dim: The number of event dimensions.

    Raises:
        ValueError: If x has fewer dimensions.

    Example:
        >>> event_numel(torch.zeros(5, 3, 4, 4), 3)
        48
    """
    if not 0 <= event_dim <= x.dim():
        raise ValueError(f"expected an input with at least event_dim={event_dim} dimensions, got {tuple(x.shape)}")
    return math.prod(x.shape[x.dim() - event_dim :])


def _tracked(x: Tensor) -> Tensor:
    """A graph node with the value (and the gradient) of x, with respect to which f(x) can be differentiated.

    It is not x itself, since tensors that f has captured may depend on x too and do not count for the Jacobian of f.
    """
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def vector_jacobian_product(y: Tensor, x: Tensor, vector: Tensor, *, create_graph: bool) -> Tensor:
    """The product J^T v for y = f(x), row by row; zero where y does not depend on x. The graph of y is kept.

    Args:
        y: The value f(x).
        x: The point at which f was evaluated.
        vector: The vector v, of the shape of y.
        create_graph: Whether the product is differentiable.

    Example:
        >>> x = torch.ones(2, requires_grad=True)
        >>> vector_jacobian_product(3 * x, x, torch.ones(2), create_graph=False)
        tensor([3., 3.])
    """
    if not y.requires_grad:
        return torch.zeros_like(x)
    (product,) = torch.autograd.grad(
        y, x, vector, retain_graph=True, create_graph=create_graph, allow_unused=True, materialize_grads=True
    )
    return product


class Product(Protocol):
    """The type of the map v -> J^T v, row by row, at one point.

    Example:
        >>> product: Product = pullback(torch.sin, torch.zeros(2))[1]
        >>> product(torch.ones(2), create_graph=False)
        tensor([1., 1.])
    """

    def __call__(self, vector: Tensor, *, create_graph: bool) -> Tensor: ...


def pullback(f: Branch, x: Tensor) -> tuple[Tensor, Product]:
    """The value f(x), and the map v -> J^T v at x.

    Both are differentiable with respect to x and to everything that f has captured; without ``create_graph``, products
    need not be differentiable. The product is zero where f does not depend on x. The caller must enable gradients,
    except in forward mode.

    Args:
        f: A map of events to events of the same shape, row by row.
        x: The point.

    Example:
        >>> value, product = pullback(torch.sin, torch.zeros(2))
        >>> product(torch.ones(2), create_graph=False)
        tensor([1., 1.])
    """
    if transforming():
        value, vjp, *_ = torch.func.vjp(f, x)

        def transformed(vector: Tensor, *, create_graph: bool) -> Tensor:
            product: Tensor = vjp(vector)[0]
            return product

        return value, transformed
    point = _tracked(x)
    value = f(point)

    def recorded(vector: Tensor, *, create_graph: bool) -> Tensor:
        return vector_jacobian_product(value, point, vector, create_graph=create_graph)

    return value, recorded


def pushforward(f: Branch, x: Tensor, vector: Tensor) -> Tensor:
    """The product J v at x inside ``torch.func`` or forward mode, by two reverse passes.

    Forward mode is not used, since its levels do not nest.

    Args:
        f: A map of events to events of the same shape, row by row.
        x: The point.
        vector: The vector v, of the shape of x.

    Example:
        >>> pushforward(lambda x: x.square(), torch.ones(2), torch.tensor([1.0, 2.0]))
        tensor([2., 4.])
    """

    def transposed(cotangent: Tensor) -> Tensor:
        product: Tensor = torch.func.vjp(f, x)[1](cotangent)[0]
        return product

    found: Tensor = torch.func.vjp(transposed, torch.zeros_like(x))[1](vector)[0]
    return found


def dense_jacobian(f: Branch, x: Tensor, event_dim: int, *, create_graph: bool) -> tuple[Tensor, Tensor]:
    """The value f(x) and the Jacobian, of shape ``batch_shape + (d, d)`` with d the size of a flattened event.

    The d rows of the Jacobian come from one vector-Jacobian product on d copies of the batch, or from several products
    that bound the memory. The copies form a new first axis, so that f may hold tensors of the batch shape (a context).
    The caller must enable gradients.

    Args:
        f: A map of events to events of the same shape, row by row.
        x: Events of shape ``batch_shape + event_shape``.
        event_dim: The number of event dimensions.
        create_graph: Whether the result is differentiable.

    Raises:
        ValueError: If f changes the shape.

    Example:
        >>> y, jacobian = dense_jacobian(torch.sin, torch.zeros(5, 2), 1, create_graph=False)
        >>> jacobian.shape, jacobian[0].tolist()
        (torch.Size([5, 2, 2]), [[1.0, 0.0], [0.0, 1.0]])
    """
    size = event_numel(x, event_dim)
    split = x.dim() - event_dim
    basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, *(1,) * split, *x.shape[split:])
    rows = []
    for vectors in basis.split(max(1, _CHUNK_ELEMENTS // max(1, x.numel()))):
        copies = x.expand(len(vectors), *x.shape)
        y, product = pullback(f, copies)
        if y.shape != copies.shape:
            raise ValueError(f"expected the branch to keep the shape {tuple(copies.shape)}, got {tuple(y.shape)}")
        found = product(vectors.expand_as(copies), create_graph=create_graph)
        rows.append(found.flatten(1 + split).movedim(0, -2))
    return y[0], torch.cat(rows, -2)
