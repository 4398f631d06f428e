"""Derivatives of the root of x + f(x) = y by the implicit function theorem."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import as_branch, constant_jacobian
from pyro_gflows.numerics.jacobian import Branch, event_numel, vector_jacobian_product
from pyro_gflows.numerics.pooled import BranchWithPooledJacobian, PooledJacobian
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.residual_map import as_float
from pyro_gflows.numerics.solvers import row_norm
from pyro_gflows.numerics.transforms_active import anywhere, transforming

__all__ = ["implicit_root"]

_DENSE_EVENT = 3
_DENSE_TRANSFORMED_EVENT = 256
_MAX_ITERATIONS = 10_000


@full_precision
def implicit_root(
    f: Branch, y: Tensor, root: Tensor, event_dim: int, *, lipschitz: float | Tensor | None = None
) -> Tensor:
    """The root x of x + f(x) = y with its derivatives with respect to y and to everything that f has captured.

    A solver finds the root without derivatives; this function attaches them and leaves the value unchanged.
    Differentiating the equation gives dx = (I + J)^-1 (dy - df). So a gradient g at the root becomes v with v + J^T v =
    g, and v is the gradient of y - f(root). The linear equation is solved densely for events of at most 3 components,
    and otherwise by iterating v <- g - J^T v. Memory does not grow with the iterations that found the root. First and
    second derivatives are right, third ones are not. Under ``torch.no_grad()`` the root is returned as it is.

    Inside ``torch.func`` (jvp, vmap, ...) and forward mode, I + J is inverted densely for events of at most 256
    components. For larger events, x <- y - f(x) is iterated with its derivatives as often as the Lipschitz bound
    requires. Where f is no contraction, which the bound ``math.inf`` says, I + J is inverted densely everywhere.

    Args:
        f: The branch, a contraction of ``batch_shape + event_shape`` to the same shape, row by row; with the bound
            ``math.inf`` any map with an invertible I + J.
        y: The right-hand side, of shape ``batch_shape + event_shape``.
        root: A solution found by a solver, of the shape of y.
        event_dim: The number of event dimensions.
        lipschitz: An upper bound of the Lipschitz constant of f, below 1 for a contraction; with None, I + J is
            inverted densely inside ``torch.func`` for events of any size.

    Raises:
        ValueError: If y and root differ in shape.
        RuntimeError: In the backward pass, if the branch is not a contraction at the root, although its bound is below
            1.

    Example:
        >>> y = torch.ones(2, requires_grad=True)
        >>> implicit_root(lambda x: 0.5 * x, y, y.detach() / 1.5, 1).sum().backward()
        >>> y.grad
        tensor([0.6667, 0.6667])
        >>> torch.func.jvp(lambda y: implicit_root(lambda x: 0.5 * x, y, y / 1.5, 1), (y,), (torch.ones(2),))[1]
        tensor([0.6667, 0.6667], grad_fn=<AddBackward0>)
    """
    if y.shape != root.shape:
        raise ValueError(f"expected a root of the shape {tuple(y.shape)} of y, got {tuple(root.shape)}")
    size = event_numel(y, event_dim)
    transformed = transforming()
    if not torch.is_grad_enabled() and not transformed:
        return root
    root = root.detach()
    expands = lipschitz is not None and not as_float(lipschitz) < 1  # then no iteration with J or f converges
    if transformed and size > _DENSE_TRANSFORMED_EVENT and lipschitz is not None and not expands:
        return _iterated(f, y, root, as_float(lipschitz))
    # Two steps x <- x + S (y - x - f(x)) from the root, with the constant matrix S = (I + J)^-1 of the root: the first
    # has the right first derivative; the second starts from there, has no first-order error left, and so has the right
    # second derivative. As S is constant, its own derivatives are those of a linear map.
    first = y - f(root)
    if not first.requires_grad and not transformed:
        return root
    first = first - root
    if transformed or size <= _DENSE_EVENT or expands:
        inverse = _inverse_matrix(f, root, event_dim)
        point = _with_derivative_of(root, _times(inverse, first, event_dim))
        return _with_derivative_of(point, _times(inverse, y - point - f(point), event_dim))
    operator = _Operator(f, root, event_dim)
    point = _Step.apply(root, first, operator)
    found: Tensor = _Step.apply(point, y - point - f(point), operator)
    return found


def _with_derivative_of(value: Tensor, source: Tensor) -> Tensor:
    """The value of ``value``, unchanged to the last bit, with the derivative of ``source`` added to its own."""
    return value + (source - source.detach())


def _iterated(f: Branch, y: Tensor, root: Tensor, lipschitz: float) -> Tensor:
    """The root with the derivatives of enough Banach steps that the remaining error is below rounding."""
    if not 0 <= lipschitz < 1:
        raise RuntimeError(f"expected a Lipschitz bound in [0, 1) for derivatives of a root, got {lipschitz}")
    steps = 1 if lipschitz == 0 else math.ceil(math.log(torch.finfo(y.dtype).eps) / math.log(lipschitz))
    x = root
    for _ in range(max(1, steps)):
        x = y - f(x)
    return _with_derivative_of(root, x)


def _inverse_matrix(f: Branch, root: Tensor, event_dim: int) -> Tensor:
    """(I + J)^-1 at the root, constant; NaN in the rows where it is singular or not finite."""
    matrix = constant_jacobian(as_branch(f, event_dim), root)
    matrix = matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)
    inverse, failed = torch.linalg.inv_ex(matrix)
    return inverse.masked_fill((failed != 0)[..., None, None], math.nan)


def _times(matrix: Tensor, x: Tensor, event_dim: int) -> Tensor:
    return (matrix @ x.flatten(x.dim() - event_dim).unsqueeze(-1)).reshape(x.shape)


class _Operator:
    """Products with S = (I + J)^-1 and with its transpose, without matrices, for the Jacobian J of f at a point.

    The object has a graph of its own. So it can be used after the backward pass has freed the graph of the root, and
    there is no cycle of references between the two graphs, which would never be freed.
    """

    def __init__(self, f: Branch, point: Tensor, event_dim: int) -> None:
        self._leaf = point.clone().requires_grad_()
        self._value = f(self._leaf)
        self._pooled: tuple[BranchWithPooledJacobian, PooledJacobian] | None = None
        branch: object = f
        if isinstance(branch, BranchWithPooledJacobian):  # then products with S take one pass
            with torch.no_grad():
                self._pooled = branch, branch.call_and_pooled_jacobian(point.detach())[1]
        self._event_dim = event_dim
        self._remainder: Tensor | None = None

    @full_precision  # a backward pass inside autocast would compute in half precision
    def transposed(self, gradient: Tensor) -> Tensor:
        """The product of S^T with a gradient."""
        if self._pooled is not None:
            branch, jacobian = self._pooled
            return branch.solve_pooled(jacobian.transposed(), gradient)
        return self._solve(gradient, self._pull)

    @full_precision
    def times(self, vector: Tensor) -> Tensor:
        """The product of S with a vector; J v is the derivative of u -> J^T u, which does not depend on u."""
        if self._pooled is not None:
            branch, jacobian = self._pooled
            return branch.solve_pooled(jacobian, vector)
        with torch.enable_grad():
            cotangent = torch.zeros_like(self._leaf, requires_grad=True)
            pulled = vector_jacobian_product(self._value, self._leaf, cotangent, create_graph=True)
        return self._solve(vector, lambda v: vector_jacobian_product(pulled, cotangent, v, create_graph=False))

    def backward(self, gradient: Tensor) -> Tensor:
        """The products of S^T with the gradients of the two steps, which a first derivative requests in reverse order.

        The two paths to the earlier step cancel, so its gradient is only the rounding error of the cancellation and
        needs no solution. Whether a gradient is such a remainder is judged by the gradient of the same pass, since the
        gradients of another pass may have any size.
        """
        remainder, self._remainder = self._remainder, None
        if remainder is None:
            solution = self.transposed(gradient)
            self._remainder = 2 * self._tolerance(gradient)
            return solution
        is_rounding = not anywhere(~(row_norm(gradient, self._event_dim) <= remainder))
        return gradient if is_rounding else self.transposed(gradient)

    def _pull(self, vector: Tensor) -> Tensor:
        return vector_jacobian_product(self._value, self._leaf, vector, create_graph=False)

    def _tolerance(self, vector: Tensor) -> Tensor:
        return torch.finfo(vector.dtype).eps ** 0.8 * row_norm(vector, self._event_dim)

    @torch.no_grad()
    def _solve(self, vector: Tensor, product: Branch) -> Tensor:
        tolerance = self._tolerance(vector)
        solution = vector
        for _ in range(_MAX_ITERATIONS):
            change = vector - product(solution) - solution
            solution = solution + change
            norm = row_norm(change, self._event_dim)
            # Rows that are not finite have lost their gradient already; they must not keep the others waiting.
            if not anywhere(norm.isfinite() & (norm > tolerance)):
                return solution
        raise RuntimeError(
            f"the adjoint iteration of implicit_root did not converge in {_MAX_ITERATIONS} steps (last change "
            f"{float(norm.max()):.3g}): the branch is not a contraction at the root; check its Lipschitz bound"
        )


class _Step(torch.autograd.Function):
    """The point x, with the gradient of x + S residual."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, operator: _Operator) -> Tensor:
        ctx.operator = operator
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, None]:
        operator: _Operator = ctx.operator
        if torch.is_grad_enabled():
            return gradient, _Solution.apply(gradient, operator, True), None
        return gradient, operator.backward(gradient), None


class _Solution(torch.autograd.Function):
    """The product S^T v or S v; the derivative of each is the other."""

    @staticmethod
    def forward(ctx: Any, vector: Tensor, operator: _Operator, transposed: bool) -> Tensor:
        ctx.operator, ctx.transposed = operator, transposed
        return operator.transposed(vector) if transposed else operator.times(vector)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        return _Solution.apply(gradient, ctx.operator, not ctx.transposed), None, None
