"""Gradients of the root of x + f(x) = y by the implicit function theorem."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, event_numel, vector_jacobian_product

__all__ = ["implicit_root"]

_DENSE_EVENT = 3
_MAX_ITERATIONS = 10_000


def implicit_root(f: Branch, y: Tensor, root: Tensor, event_dim: int) -> Tensor:
    """The root with gradients with respect to y and to everything that f has captured; its value is unchanged.

    For x + f(x) = y: dx = (I + J)^-1 (dy - df), so a gradient g at the root becomes v with v + J^T v = g, solved
    densely for at most 3 entries and otherwise by v <- g - J^T v, and v is what y - f(root) receives. Memory does not
    grow with the iterations that found the root. Under ``torch.no_grad()`` the root is returned as it is.

    Arguments:
        f: the branch, a contraction of batch_shape + event_shape to the same shape, row by row.
        y: the right-hand side, of shape batch_shape + event_shape.
        root: a solution found by a solver, of the shape of y.
        event_dim: the number of event dimensions.

    Raises:
        ValueError: y and root differ in shape.
        RuntimeError: (in the backward pass) the branch is not a contraction at the root.

    >>> y = torch.ones(2, requires_grad=True)
    >>> implicit_root(lambda x: 0.5 * x, y, y.detach() / 1.5, 1).sum().backward()
    >>> y.grad
    tensor([0.6667, 0.6667])
    """
    if y.shape != root.shape:
        raise ValueError(f"expected a root of the shape {tuple(y.shape)} of y, received {tuple(root.shape)}")
    size = event_numel(y, event_dim)
    if not torch.is_grad_enabled():
        return root
    root = root.detach()
    attached = y - f(root)
    if not attached.requires_grad:
        return root
    # Evaluated now and not in the hook: by then f may hold other parameters (torch.func.functional_call).
    point = root.clone().requires_grad_()
    value = f(point)
    split = y.dim() - event_dim

    def adjoint(gradient: Tensor | None) -> Tensor | None:
        if gradient is None:
            return None
        if not torch.is_grad_enabled():
            return _solve_adjoint(point, value, gradient, split, size)
        # A second derivative is wanted: the Jacobian must depend on the root, and the root on y and the parameters.
        again = implicit_root(f, y, root, event_dim)
        return _solve_adjoint(again, f(again), gradient, split, size)

    # Subtracting the value from itself is exactly zero: the root's value does not depend on the autograd mode.
    attached.register_hook(adjoint)
    return root + (attached - attached.detach())


def _solve_adjoint(x: Tensor, value: Tensor, gradient: Tensor, split: int, size: int) -> Tensor:
    """v with v + J^T v = gradient, where J is the Jacobian of value with respect to x; differentiable on demand."""
    create_graph = torch.is_grad_enabled()

    def transposed(vector: Tensor) -> Tensor:
        return vector_jacobian_product(value, x, vector, create_graph=create_graph)

    if size <= _DENSE_EVENT:
        basis = torch.eye(size, dtype=x.dtype, device=x.device).reshape(size, *x.shape[split:])
        rows = [transposed(vector.expand_as(x)).reshape(*x.shape[:split], size) for vector in basis]
        matrix = torch.stack(rows, -1) + torch.eye(size, dtype=x.dtype, device=x.device)
        return torch.linalg.solve(matrix, gradient.reshape(*x.shape[:split], size, 1)).reshape(x.shape)
    if gradient.numel() == 0:
        return gradient
    solution = gradient
    scale = _row_max(gradient, split)
    for _ in range(_MAX_ITERATIONS):
        previous, solution = solution, gradient - transposed(solution)
        change = _row_max((solution - previous).detach(), split)
        if not torch.isfinite(change).all() or (change <= torch.finfo(x.dtype).eps ** 0.8 * scale).all():
            return solution
    raise RuntimeError(
        f"the adjoint iteration of implicit_root did not converge in {_MAX_ITERATIONS} steps (last change "
        f"{float(change.max()):.3g}): the branch is not a contraction at the root; check its Lipschitz bound"
    )


def _row_max(x: Tensor, split: int) -> Tensor:
    return x.detach().abs().flatten(split).amax(-1)
