"""Newton's method with shortened steps for x + f(x) = y, where f need not be a contraction."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch, constant_jacobian
from pyro_gflows.numerics.solvers import Solver, row_norm
from pyro_gflows.numerics.transforms_active import anywhere
from pyro_gflows.serialization.registry import registered

__all__ = ["DampedNewtonSolver"]

_HALVINGS = 30
_DECREASE = 0.1


@registered
class DampedNewtonSolver(Solver):
    """Newton's method for maps x + f(x) that may expand without limit, in any dimension.

    Other solvers of this package need a contraction f. This one needs that x + f(x) is a bijection with an invertible
    Jacobian, such as the gradient of a strictly convex function. It halves a Newton step until the Euclidean residual
    of the row shrinks, which it does for a step that is short enough, and converges quadratically near the root. Each
    step solves a dense linear equation of the size of an event.

    Args:
        tolerance: The largest accepted residual, as for :class:`Solver`.
        max_iterations: The largest number of steps, as for :class:`Solver`.
        strict: Whether to raise above the tolerance, as for :class:`Solver`.

    Example:
        >>> import math
        >>> y = torch.tensor([[100.0]], dtype=torch.float64)
        >>> root, report = DampedNewtonSolver()(lambda x: x**3, y, 1, lipschitz=math.inf)
        >>> bool((root + root**3 - y).abs().max() < 1e-10), report.iterations < 20
        (True, True)
    """

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        jacobian = constant_jacobian(f, x)
        matrix = jacobian + torch.eye(jacobian.shape[-1], dtype=x.dtype, device=x.device)
        # solve_ex marks a singular matrix in its own row, where solve would raise for the whole batch
        solution, _ = torch.linalg.solve_ex(matrix, residual.flatten(x.dim() - event_dim).unsqueeze(-1))
        direction = solution.reshape(x.shape)
        before = row_norm(residual, event_dim)
        # rows that the solver does not change any more must not keep the others waiting
        waiting = before.isfinite() & (row_norm(residual, event_dim, math.inf) > self._tolerances(y, event_dim))
        size = torch.ones_like(before)
        for _ in range(_HALVINGS):
            following = x + size.reshape(size.shape + (1,) * event_dim) * direction
            following_residual = y - following - f(following)
            shrunk = row_norm(following_residual, event_dim) <= (1 - _DECREASE * size) * before
            if not anywhere(waiting & ~shrunk):  # a residual that is not finite counts as not shrunk
                break
            size = torch.where(shrunk, size, size / 2)
        return following, following_residual
