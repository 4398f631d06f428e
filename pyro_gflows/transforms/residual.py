"""G-residual flows: x + f(x) with an equivariant contraction f."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import GroupAction
from pyro_gflows.nn import LipschitzNetwork, LipschitzSum, kernels_once, lipschitz_branch
from pyro_gflows.numerics import BanachSolver, ExactLogDet, LogDet, NewtonSolver, RouletteLogDet, Solver, implicit_root
from pyro_gflows.registry import registered
from pyro_gflows.transforms.one_way import Fast, OneWayTransform

__all__ = ["GResidual", "g_residual"]


@registered
class GResidual(OneWayTransform):
    r"""The residual map of an equivariant contraction.

    .. math:: y = x + f(x), \qquad \log|\det J| = \log|\det(I + J_f(x))|

    Bijective because Lip(f) < 1 (Banach's fixed-point theorem); equivariant because f is. The inverse is a root, found
    by ``solver``, with gradients by the implicit function theorem.

    Args:
        action: how the group moves events.
        branch: f, an equivariant module with ``lipschitz_bound()``; an exact log-det uses its ``call_and_jacobian``
            where it has one.
        log_det: an estimator; exact by default.
        solver: how to invert; Newton for events of at most 3 numbers, else the Banach iteration.
        fast: which direction evaluates f once ("score" or "sample").

    Raises:
        TypeError: the branch has no ``lipschitz_bound``.
        ValueError: its bound is 1 or more, or not finite; or the branch is made for another action.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; Residual Flows, arXiv:1906.02735.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> layer = g_residual(VectorAction.plane("D8"))
        >>> layer(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    def __init__(
        self,
        action: GroupAction,
        branch: nn.Module,
        *,
        log_det: LogDet | None = None,
        solver: Solver | None = None,
        fast: Fast = "score",
    ) -> None:
        super().__init__(action, fast=fast)
        if not hasattr(branch, "lipschitz_bound"):
            raise TypeError(
                f"expected a branch with a lipschitz_bound() method, got {type(branch).__name__}; build it from "
                "pyro_gflows.nn, or give your module a method that returns an upper bound"
            )
        if getattr(branch, "action", action) != action:
            raise ValueError(f"expected a branch for {action}, got one for {branch.action}")
        self.branch = branch
        self.log_det = ExactLogDet() if log_det is None else log_det
        self.solver = (NewtonSolver() if action.numel <= 3 else BanachSolver()) if solver is None else solver
        bound = float(self.lipschitz_bound())
        if not bound < 1:
            raise ValueError(
                f"expected a branch with a Lipschitz bound below 1, got {bound:g}; an unbounded activation (gated) or "
                "an unbounded layer is in it: use the Lipschitz layers and activations of pyro_gflows.nn"
            )

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of Lip(f), as the weights are now."""
        bound: Tensor = self.branch.lipschitz_bound()  # type: ignore[operator]
        return torch.as_tensor(bound).detach()

    def _promised_bound(self) -> float | Tensor:
        """A bound for solvers and estimators; what a branch promises for all weights costs nothing to compute."""
        known = isinstance(self.branch, LipschitzSum | LipschitzNetwork)
        return self.branch.bound if known else self.lipschitz_bound()  # type: ignore[return-value]

    def cheap(self, x: Tensor) -> tuple[Tensor, Tensor]:
        value, ladj = self.log_det(
            self.branch,
            x,
            self.action_in.event_dim,
            lipschitz=self._promised_bound(),
            training=self.training,
            orbit=self.action_in.act_all if self.action_in.is_finite else None,
        )
        return x + value, ladj

    def costly(self, y: Tensor) -> tuple[Tensor, Tensor]:
        with torch.no_grad(), kernels_once(self.branch):
            root, _ = self.solver(self.branch, y, self.action_in.event_dim, lipschitz=self._promised_bound())
        x = implicit_root(self.branch, y, root, self.action_in.event_dim)
        return x, -self.cheap(x)[1]

    def extra_repr(self) -> str:
        estimator = self.log_det.describe(lipschitz=self.lipschitz_bound(), dim=self.action_in.numel)
        return f"{super().extra_repr()}, Lipschitz bound {self.lipschitz_bound():.3f}, log-det {estimator}"


_EXACT_UP_TO = 64


def g_residual(
    action: GroupAction,
    *,
    branch: nn.Module | None = None,
    bound: float = 0.99,
    log_det: LogDet | None = None,
    solver: Solver | None = None,
    fast: Fast = "score",
) -> GResidual:
    """A residual layer with the branch that suits the action.

    Args:
        action: how the group moves events.
        branch: an equivariant contraction; by default ``nn.lipschitz_branch(action, bound=bound)``.
        bound: Lipschitz bound of the default branch.
        log_det: exact for events of at most 64 numbers; else the unbiased roulette in training and the exact one in
            evaluation.
        solver: Newton for events of at most 3 numbers, else the Banach iteration.
        fast: "score" (density estimation) or "sample" (guides).

    Example:
        >>> from pyro_gflows import VectorAction
        >>> g_residual(VectorAction.plane("D8"), fast="sample").fast
        'sample'
    """
    chosen = lipschitz_branch(action, bound=bound) if branch is None else branch
    if log_det is None:
        log_det = ExactLogDet() if action.numel <= _EXACT_UP_TO else RouletteLogDet()
    return GResidual(action, chosen, log_det=log_det, solver=solver, fast=fast)
