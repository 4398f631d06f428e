"""Gradients of the root of x + f(x) = y by the implicit function theorem."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, event_numel, vector_jacobian_product
from pyro_gflows.numerics.solvers import row_norm
from pyro_gflows.precision import full_precision

__all__ = ["implicit_root"]

_DENSE_EVENT = 3
_MAX_ITERATIONS = 10_000


@full_precision
def implicit_root(f: Branch, y: Tensor, root: Tensor, event_dim: int) -> Tensor:
    """The root with gradients with respect to y and to everything that f has captured; its value is unchanged.

    For x + f(x) = y: dx = (I + J)^-1 (dy - df), so a gradient g at the root becomes v with v + J^T v = g, solved
    densely for at most 3 entries and otherwise by v <- g - J^T v, and v is what y - f(root) receives. Memory does not
    grow with the iterations that found the root. First and second derivatives are right; third ones are not. Under
    ``torch.no_grad()`` the root is returned as it is.

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
    event_numel(y, event_dim)
    if not torch.is_grad_enabled():
        return root
    root = root.detach()
    first = y - f(root)
    if not first.requires_grad:
        return root
    # Two Newton steps from the root. The first has the right first derivative; the second starts from there, has no
    # first-order error left, and so has the right second derivative. The first solves with the Jacobian at a leaf: its
    # hook must not hold the graph that holds the hook, for such a cycle is never freed.
    leaf = root.clone().requires_grad_()
    first_adjoint = _Adjoint(f(leaf), leaf, event_dim)
    first.register_hook(first_adjoint)
    point = _with_gradient_of(root, first)
    second_adjoint = _Adjoint(f(point), point, event_dim, before=first_adjoint)
    second = y - point - second_adjoint.value
    second.register_hook(second_adjoint)
    return _with_gradient_of(point, second)


def _with_gradient_of(value: Tensor, source: Tensor) -> Tensor:
    """``value``, to the last bit, plus the gradient of ``source``."""
    return value + (source - source.detach())


class _Adjoint:
    """gradient -> v with v + J^T v = gradient, where J is the Jacobian of value with respect to x; differentiable."""

    def __init__(self, value: Tensor, x: Tensor, event_dim: int, *, before: _Adjoint | None = None) -> None:
        self.value = value
        self.x = x
        self.event_dim = event_dim
        self.before = before
        self.remainder: Tensor | None = None

    @full_precision  # a backward pass inside autocast computes in it too
    def __call__(self, gradient: Tensor | None) -> Tensor | None:
        if gradient is None:  # autograd's way to say zero
            return None
        norm = row_norm(gradient.detach(), self.event_dim)
        create_graph = torch.is_grad_enabled()
        # In a first derivative the two paths to the first step cancel, and what rounding left needs no solution.
        if not create_graph and self.remainder is not None and (norm <= self.remainder).all():
            return gradient
        tolerance = torch.finfo(gradient.dtype).eps ** 0.8 * norm
        solution = self._solve(gradient.detach(), tolerance)
        if self.before is not None:
            self.before.remainder = 2 * tolerance
        if not create_graph:
            return solution
        # v + J^T v = gradient is again an equation of this kind, with the contraction J^T for a branch.
        return implicit_root(self._transposed, gradient, solution, self.event_dim)

    def _transposed(self, vector: Tensor) -> Tensor:
        return vector_jacobian_product(self.value, self.x, vector, create_graph=torch.is_grad_enabled())

    @torch.no_grad()
    def _solve(self, gradient: Tensor, tolerance: Tensor) -> Tensor:
        split = gradient.dim() - self.event_dim
        size = event_numel(gradient, self.event_dim)
        if size <= _DENSE_EVENT:
            identity = torch.eye(size, dtype=gradient.dtype, device=gradient.device)
            basis = identity.reshape(size, *gradient.shape[split:])
            rows = [self._transposed(vector.expand_as(gradient)).flatten(split) for vector in basis]
            matrix = torch.stack(rows, -1) + identity
            return torch.linalg.solve(matrix, gradient.flatten(split).unsqueeze(-1)).reshape(gradient.shape)
        solution = gradient
        for _ in range(_MAX_ITERATIONS):
            change = gradient - self._transposed(solution) - solution
            solution = solution + change
            norm = row_norm(change, self.event_dim)
            # Rows that are not finite have lost their gradient already; they must not keep the others waiting.
            if not (norm.isfinite() & (norm > tolerance)).any():
                return solution
        raise RuntimeError(
            f"the adjoint iteration of implicit_root did not converge in {_MAX_ITERATIONS} steps (last change "
            f"{float(norm.max()):.3g}): the branch is not a contraction at the root; check its Lipschitz bound"
        )
