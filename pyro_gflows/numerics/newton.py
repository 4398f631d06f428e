"""Newton's method for x + f(x) = y on small events."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.numerics.jacobian import Branch, dense_jacobian
from pyro_gflows.numerics.solvers import Solver
from pyro_gflows.registry import registered

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

    def step(self, f: Branch, y: Tensor, x: Tensor, residual: Tensor, lipschitz: float) -> tuple[Tensor, Tensor]:
        event_dim = x.dim() - 1
        size = x[0].numel()
        if size > _LARGEST_EVENT:
            raise ValueError(
                f"expected events of at most {_LARGEST_EVENT} entries, received {tuple(x.shape[1:])}; use BanachSolver"
            )
        matrix = self._jacobian(f, x, event_dim) + torch.eye(size, dtype=x.dtype, device=x.device)
        # solve_ex reports a singular matrix per row, where solve would raise for the whole batch.
        direction, _ = torch.linalg.solve_ex(matrix, residual.reshape(-1, size, 1))
        newton = x + direction.reshape(x.shape)
        newton_residual = y - newton - f(newton)
        banach = x + residual
        promised = min(lipschitz, 1.0) * residual.flatten(1).norm(dim=1)
        # A comparison with NaN is false, so a Newton step that is not finite is refused here as well.
        accepted = newton_residual.flatten(1).norm(dim=1) <= promised
        if accepted.all():
            return newton, newton_residual
        mask = accepted.reshape(-1, *(1,) * event_dim)
        moved = torch.where(mask, newton, banach)
        return moved, torch.where(mask, newton_residual, y - banach - f(banach))

    @staticmethod
    def _jacobian(f: Branch, x: Tensor, event_dim: int) -> Tensor:
        if hasattr(f, "call_and_jacobian"):
            return f.call_and_jacobian(x)[1]
        with torch.inference_mode(False), torch.enable_grad():
            return dense_jacobian(f, x.clone(), event_dim, create_graph=False)[1].detach()
