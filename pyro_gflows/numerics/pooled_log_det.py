"""The exact log-det of a residual map of rows that reads all rows through pooled features, in linear time."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch
from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.pooled import BranchWithPooledJacobian
from pyro_gflows.numerics.probe_images import ProbeImages
from pyro_gflows.numerics.residual_map import ResidualMap
from pyro_gflows.numerics.solvers import Solver, row_norm
from pyro_gflows.numerics.transforms_active import anywhere
from pyro_gflows.serialization.registry import registered

__all__ = ["PooledLogDet", "PooledNewtonSolver"]


@registered
class PooledLogDet(LogDet):
    """The exact log-det of I + J for a branch that reads the rows of an event through pooled features.

    It suits sets of any size: the cost is linear in the number of rows, where :class:`ExactLogDet` takes a dense
    determinant. The branch has to be a :class:`BranchWithPooledJacobian`, such as
    :class:`~pyro_gflows.nn.PooledBranch`, for which residual layers take this log-det by default; any other branch is a
    TypeError in the first call. It is the same in training and in evaluation, and invariant up to rounding.

    Example:
        >>> PooledLogDet()
        PooledLogDet(exact, linear in the rows)
    """

    def estimate(self, residual_map: ResidualMap, x: Tensor, *, create_graph: bool) -> tuple[Tensor, Tensor]:
        branch = _pooled(residual_map.f, "ExactLogDet")
        with torch.set_grad_enabled(create_graph):
            value, jacobian = branch.call_and_pooled_jacobian(x)
            return value, jacobian.log_abs_det()

    def describe(self, *, lipschitz: float | Tensor, dim: int, images: ProbeImages | None = None) -> str:
        return "exact, linear in the rows"

    def __repr__(self) -> str:
        return "PooledLogDet(exact, linear in the rows)"


@registered
class PooledNewtonSolver(Solver):
    """Newton's method for a branch that reads the rows of an event through pooled features, in linear time.

    It inverts residual layers on sets of any size, in a few steps where the Banach iteration takes many. If a Newton
    step does not shrink the Euclidean residual of an event at least as much as the Lipschitz bound promises for a
    Banach step, the event takes the Banach step instead, so that the method converges wherever the Banach iteration
    does. The branch has to be a :class:`BranchWithPooledJacobian`.

    Args:
        tolerance: The largest accepted residual, as for :class:`Solver`.
        max_iterations: The largest number of steps, as for :class:`Solver`.
        strict: Whether to raise above the tolerance, as for :class:`Solver`.

    Raises:
        TypeError: In a call, if the branch has no pooled Jacobian.

    Example:
        >>> PooledNewtonSolver()
        PooledNewtonSolver(tolerance=by dtype, max_iterations=by Lipschitz bound, strict=True)
    """

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        newton = x + _newton_step(f, x, residual)
        newton_residual = y - newton - f(newton)
        # A comparison with NaN is false, so that a Newton step that is not finite is refused as well.
        accepted = row_norm(newton_residual, event_dim) <= min(lipschitz, 1.0) * row_norm(residual, event_dim)
        if not anywhere(~accepted):
            return newton, newton_residual
        banach = x + residual
        mask = accepted.reshape(accepted.shape + (1,) * event_dim)
        return torch.where(mask, newton, banach), torch.where(mask, newton_residual, y - banach - f(banach))


def _newton_step(f: DifferentiableBranch, x: Tensor, residual: Tensor) -> Tensor:
    branch = _pooled(f, "AndersonSolver")
    _, jacobian = branch.call_and_pooled_jacobian(x)
    return branch.solve_pooled(jacobian, residual)


def _pooled(branch: object, instead: str) -> BranchWithPooledJacobian:
    if not isinstance(branch, BranchWithPooledJacobian):
        raise TypeError(
            f"expected a branch with a pooled Jacobian, such as nn.PooledBranch, got {type(branch).__name__}; take "
            f"{instead}, which works for other branches"
        )
    return branch
