"""G-monotone layers: the residual layer as a monotone operator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn import kernels_once
from pyro_gflows.numerics import BanachSolver, Branch, ExactLogDet, LogDet, NewtonSolver, Solver, implicit_root
from pyro_gflows.registry import registered
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.residual import bound_now, certificate, check_branch, promised_bound

__all__ = ["GMonotone"]


@registered
class GMonotone(EquivariantTransform):
    r"""The Cayley form of a residual map: both sides are residual maps of one hidden point.

    .. math:: x = \tfrac12 (u + f(u)), \qquad y = \tfrac12 (u - f(u)), \qquad
        \log\Big|\det\frac{dy}{dx}\Big| = \log|\det(I - J_f(u))| - \log|\det(I + J_f(u))|

    Bijective because Lip(f) < 1, so that x determines u, and y does (Banach's fixed-point theorem); equivariant because
    f is. With a constant c of f, slopes reach from (1 - c) / (1 + c) to (1 + c) / (1 - c), where those of a residual
    layer stay below 2. Either direction is one root, with gradients by the implicit function theorem.

    Args:
        action: how the group moves events.
        branch: f, as for :class:`GResidual`, without a context.
        log_det: an estimator; exact by default.
        solver: how to find u; Newton for events of at most 3 numbers, else the Banach iteration.

    Raises:
        TypeError: the branch has no ``lipschitz_bound``.
        ValueError: its bound is 1 or more, or not finite; the branch is made for another action, or takes a context.

    Source: Invertible Monotone Operators for Normalizing Flows, arXiv:2210.08176.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> from pyro_gflows.nn import lipschitz_branch
        >>> action = VectorAction.plane("D8")
        >>> layer = GMonotone(action, lipschitz_branch(action, bound=0.9))
        >>> x = torch.randn(5, 2)
        >>> bool((layer.inv(layer(x)) - x).abs().max() < 1e-4)
        True
    """

    log_dets = 2  # how many a call computes, each with an error of its own

    def __init__(
        self,
        action: LinearAction,
        branch: nn.Module,
        *,
        log_det: LogDet | None = None,
        solver: Solver | None = None,
    ) -> None:
        super().__init__(action)
        self._bound_as_built = check_branch(branch, action)
        if getattr(branch, "context_action", None) is not None:
            raise ValueError(f"expected a branch without a context, got one that reads {branch.context_action}")
        self.branch = branch
        self.log_det = ExactLogDet() if log_det is None else log_det
        self.solver = (NewtonSolver() if action.numel <= 3 else BanachSolver()) if solver is None else solver

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of Lip(f), as the weights are now."""
        return bound_now(self.branch)

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._across(self.branch, _Negative(self.branch), x)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._across(_Negative(self.branch), self.branch, y)

    def _across(self, there: Branch, back: Branch, x: Tensor) -> tuple[Tensor, Tensor]:
        """From (u + there(u)) / 2 to (u + back(u)) / 2."""
        event_dim, bound = self.action_in.event_dim, promised_bound(self.branch)
        with torch.no_grad(), kernels_once(self.branch):
            root, _ = self.solver(there, 2 * x, event_dim, lipschitz=bound)
        with kernels_once(self.branch):
            u = implicit_root(there, 2 * x, root, event_dim, lipschitz=bound)
            _, before = self._log_det(there, u, bound)
            value, after = self._log_det(back, u, bound)
        return 0.5 * (u + value), after - before

    def _log_det(self, f: Branch, u: Tensor, bound: float | Tensor) -> tuple[Tensor, Tensor]:
        orbit = self.action_in.act_all if self.action_in.is_finite else None
        return self.log_det(f, u, self.action_in.event_dim, lipschitz=bound, training=self.training, orbit=orbit)

    def extra_repr(self) -> str:
        certified = certificate(self.branch, self.log_det, self.action_in.numel, as_built=self._bound_as_built)
        return f"{super().extra_repr()}, {certified}"


class _Negative:
    """x -> -f(x), with the Jacobian that f knows."""

    def __init__(self, f: nn.Module) -> None:
        self.f = f
        if hasattr(f, "call_and_jacobian"):
            self.call_and_jacobian = self._negative_jacobian

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = -self.f(x)
        return out

    def _negative_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, jacobian = self.f.call_and_jacobian(x)  # type: ignore[operator]
        return -value, -jacobian
