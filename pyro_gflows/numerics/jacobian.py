"""Jacobians of row-wise independent maps by reverse-mode differentiation, which may itself be differentiated."""

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
    """The number of entries of one event: the product of the last ``event_dim`` sizes.

    >>> event_numel(torch.zeros(5, 3, 4, 4), 3)
    48
    """
    if not 0 <= event_dim <= x.dim():
        raise ValueError(f"expected an input with at least event_dim={event_dim} dimensions, received {tuple(x.shape)}")
    return math.prod(x.shape[x.dim() - event_dim :])


def _tracked(x: Tensor) -> Tensor:
    """A node of its own with the value (and the gradient) of x, with respect to which f(x) can be differentiated.

    Not x itself: what f has captured may depend on x too, and is not part of the Jacobian of f.
    """
    return x.view_as(x) if x.requires_grad else x.detach().requires_grad_()


def vector_jacobian_product(y: Tensor, x: Tensor, vector: Tensor, *, create_graph: bool) -> Tensor:
    """v -> J^T v for y = f(x), row by row; zero where y does not depend on x. The graph of y is kept.

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
    """v -> J^T v, row by row, at one point."""

    def __call__(self, vector: Tensor, *, create_graph: bool) -> Tensor: ...


def pullback(f: Branch, x: Tensor) -> tuple[Tensor, Product]:
    """f(x), and the map v -> J^T v at x, both differentiable with respect to x and to all that f has captured.

    The product is zero where f does not depend on x. Without ``create_graph`` it need not be differentiable. Gradients
    must be enabled by the caller, but for forward mode, whose tangents do not ask.

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
    """J v at x inside ``torch.func`` or forward mode, by two reverse passes: the levels of forward mode do not nest.

    >>> pushforward(lambda x: x.square(), torch.ones(2), torch.tensor([1.0, 2.0]))
    tensor([2., 4.])
    """

    def transposed(cotangent: Tensor) -> Tensor:
        product: Tensor = torch.func.vjp(f, x)[1](cotangent)[0]
        return product

    found: Tensor = torch.func.vjp(transposed, torch.zeros_like(x))[1](vector)[0]
    return found


def dense_jacobian(f: Branch, x: Tensor, event_dim: int, *, create_graph: bool) -> tuple[Tensor, Tensor]:
    """f(x) and its Jacobian, of shape batch_shape + (d, d) with d the size of a flattened event.

    The d rows of the Jacobian come from one vector-Jacobian product on d copies of the batch, or from several that
    bound the memory. The copies are a new first axis, so that f may hold tensors of the batch shape (a context).
    Gradients must be enabled by the caller; ``create_graph`` makes the result differentiable.

    Raises:
        ValueError: f changes the shape.

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
            raise ValueError(f"expected the branch to keep the shape {tuple(copies.shape)}, received {tuple(y.shape)}")
        found = product(vectors.expand_as(copies), create_graph=create_graph)
        rows.append(found.flatten(1 + split).movedim(0, -2))
    return y[0], torch.cat(rows, -2)
