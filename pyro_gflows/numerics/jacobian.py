"""Jacobians of row-wise independent maps by reverse-mode differentiation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["Branch", "dense_jacobian", "event_numel", "tracked", "vector_jacobian_product"]

#: A map of batch_shape + event_shape to the same shape in which each batch row depends on its own input row only.
Branch = Callable[[Tensor], Tensor]

_CHUNK_ELEMENTS = 2**23


def event_numel(x: Tensor, event_dim: int) -> int:
    """The number of entries of one event: the product of the last ``event_dim`` sizes.

    >>> event_numel(torch.zeros(5, 3, 4, 4), 3)
    48
    """
    if not 0 <= event_dim <= x.dim():
        raise ValueError(f"expected an input with at least event_dim={event_dim} dimensions, received {tuple(x.shape)}")
    return math.prod(x.shape[x.dim() - event_dim :])


def tracked(x: Tensor) -> Tensor:
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


def dense_jacobian(f: Branch, x: Tensor, event_dim: int, *, create_graph: bool) -> tuple[Tensor, Tensor]:
    """f(x) and its Jacobian, of shape batch_shape + (d, d) with d the size of a flattened event.

    All d rows of the Jacobian come from one vector-Jacobian product on d copies of the batch, in chunks of rows that
    bound the memory. Gradients must be enabled by the caller; ``create_graph`` makes the result differentiable.

    >>> y, jacobian = dense_jacobian(torch.sin, torch.zeros(5, 2), 1, create_graph=False)
    >>> jacobian.shape, jacobian[0].tolist()
    (torch.Size([5, 2, 2]), [[1.0, 0.0], [0.0, 1.0]])
    """
    size = event_numel(x, event_dim)
    split = x.dim() - event_dim
    batch_shape, event_shape = x.shape[:split], x.shape[split:]
    basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, 1, *event_shape)
    values, jacobians = [], []
    for rows in x.reshape(-1, *event_shape).split(max(1, _CHUNK_ELEMENTS // (size * size))):
        copies = rows.expand(size, *rows.shape).reshape(-1, *event_shape)
        copies = tracked(copies)
        y = f(copies)
        if y.shape != copies.shape:
            raise ValueError(f"expected the branch to keep the shape {tuple(copies.shape)}, received {tuple(y.shape)}")
        vectors = basis.expand(size, *rows.shape).reshape(copies.shape)
        product = vector_jacobian_product(y, copies, vectors, create_graph=create_graph)
        jacobians.append(product.reshape(size, len(rows), size).movedim(0, 1))
        values.append(y[: len(rows)])
    value = torch.cat(values).reshape(x.shape)
    return value, torch.cat(jacobians).reshape(*batch_shape, size, size)
