"""Newton's method for x + f(x) = y on small events."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch, constant_jacobian
from pyro_gflows.numerics.jacobian import event_numel
from pyro_gflows.numerics.solvers import Solver, row_norm
from pyro_gflows.numerics.transforms_active import anywhere
from pyro_gflows.serialization.registry import registered

__all__ = ["NewtonSolver", "SafeguardedNewton"]

_LARGEST_EVENT = 3


class SafeguardedNewton(Solver):
    """Newton's method, in which an event takes the Banach step where the Newton step shrinks its residual too little.

    A subclass says how the step is computed.
    """

    def direction(self, f: DifferentiableBranch, x: Tensor, residual: Tensor, event_dim: int) -> Tensor:
        """The Newton step s with (I + J) s = r; what is not finite is refused.

        Args:
            f: The branch, with Jacobian J.
            x: The present points.
            residual: Their residuals r.
            event_dim: The number of dimensions of an event.
        """
        raise NotImplementedError

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        newton = x + self.direction(f, x, residual, event_dim)
        newton_residual = y - newton - f(newton)
        # A comparison with NaN is false, so that a Newton step that is not finite is refused as well.
        accepted = row_norm(newton_residual, event_dim) <= min(lipschitz, 1.0) * row_norm(residual, event_dim)
        if not anywhere(~accepted):
            return newton, newton_residual
        banach = x + residual
        mask = accepted.reshape(accepted.shape + (1,) * event_dim)
        return torch.where(mask, newton, banach), torch.where(mask, newton_residual, y - banach - f(banach))


@registered
class NewtonSolver(SafeguardedNewton):
    """Newton's method x <- x + (I + J_f(x))^-1 (y - x - f(x)), for events of at most 3 components.

    It needs far fewer steps than :class:`BanachSolver` where the Lipschitz constant is close to 1. If a Newton step
    does not shrink the Euclidean residual of a row at least as much as the Lipschitz bound promises for a Banach step,
    the row takes the Banach step instead. So the method converges wherever the Banach iteration does, and quadratically
    near the root of a smooth branch. The Jacobian is the branch's own ``call_and_jacobian`` if it has one.

    Args:
        tolerance: The largest accepted residual, as for :class:`Solver`.
        max_iterations: The largest number of steps, as for :class:`Solver`.
        strict: Whether to raise above the tolerance, as for :class:`Solver`.

    Raises:
        ValueError: In a call, if the event has more than 3 components.

    Example:
        >>> y = torch.ones(3, 2, dtype=torch.float64)
        >>> root, report = NewtonSolver()(lambda x: 0.9 * x.sin(), y, 1, lipschitz=0.9)
        >>> bool((root + 0.9 * root.sin() - y).abs().max() < 1e-12), report.iterations < 10
        (True, True)
    """

    def direction(self, f: DifferentiableBranch, x: Tensor, residual: Tensor, event_dim: int) -> Tensor:
        size = event_numel(x, event_dim)
        if size > _LARGEST_EVENT:
            shape = tuple(x.shape[x.dim() - event_dim :])
            raise ValueError(f"expected events of at most {_LARGEST_EVENT} entries, got {shape}; use AndersonSolver")
        matrix = constant_jacobian(f, x) + torch.eye(size, dtype=x.dtype, device=x.device)
        # solve_ex marks a singular matrix in its own row, where solve would raise for the whole batch.
        found, _ = torch.linalg.solve_ex(matrix, residual.flatten(x.dim() - event_dim).unsqueeze(-1))
        return found.reshape(x.shape)
