"""Newton's method for x + f(x) = y on small events."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch, constant_jacobian
from pyro_gflows.numerics.jacobian import event_numel
from pyro_gflows.numerics.solvers import Solver, row_norm
from pyro_gflows.numerics.transforms_active import anywhere
from pyro_gflows.serialization.registry import registered

__all__ = ["NewtonSolver"]

_LARGEST_EVENT = 3


@registered
class NewtonSolver(Solver):
    """Newton's method, x <- x + (I + J_f(x))^-1 (y - x - f(x)), for events of at most 3 entries.

    A row whose Newton step does not shrink the Euclidean residual at least as much as the Lipschitz bound promises
    for a Banach step takes that Banach step instead, so the method converges wherever the Banach iteration does, and
    quadratically near the root of a smooth branch. The branch's ``call_and_jacobian`` is used where it has one.

    Raises:
        ValueError: the event has more than 3 entries.

    >>> y = torch.ones(3, 2, dtype=torch.float64)
    >>> root, report = NewtonSolver()(lambda x: 0.9 * x.sin(), y, 1, lipschitz=0.9)
    >>> bool((root + 0.9 * root.sin() - y).abs().max() < 1e-12), report.iterations < 10
    (True, True)
    """

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        size = event_numel(x, event_dim)
        if size > _LARGEST_EVENT:
            shape = tuple(x.shape[x.dim() - event_dim :])
            raise ValueError(f"expected events of at most {_LARGEST_EVENT} entries, received {shape}; use BanachSolver")
        matrix = constant_jacobian(f, x) + torch.eye(size, dtype=x.dtype, device=x.device)
        # solve_ex marks a singular matrix in its own row, where solve would raise for the whole batch.
        direction, _ = torch.linalg.solve_ex(matrix, residual.flatten(x.dim() - event_dim).unsqueeze(-1))
        newton = x + direction.reshape(x.shape)
        newton_residual = y - newton - f(newton)
        # A comparison with NaN is false, so a Newton step that is not finite is refused here as well.
        accepted = row_norm(newton_residual, event_dim) <= min(lipschitz, 1.0) * row_norm(residual, event_dim)
        if not anywhere(~accepted):
            return newton, newton_residual
        banach = x + residual
        mask = accepted.reshape(accepted.shape + (1,) * event_dim)
        return torch.where(mask, newton, banach), torch.where(mask, newton_residual, y - banach - f(banach))
