"""G-residual flows: x + f(x) with an equivariant contraction f."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn import (
    ConditionalBranch,
    LipschitzDenseNetwork,
    LipschitzNetwork,
    LipschitzSum,
    kernels_once,
    lipschitz_branch,
)
from pyro_gflows.numerics import (
    BanachSolver,
    Branch,
    ExactLogDet,
    LogDet,
    NewtonSolver,
    RouletteLogDet,
    SeriesLogDet,
    Solver,
    implicit_root,
)
from pyro_gflows.precision import full_precision
from pyro_gflows.registry import registered
from pyro_gflows.transforms.one_way import Fast, OneWayTransform

__all__ = ["GResidual", "bound_now", "certificate", "check_branch", "g_residual", "promised_bound"]


@registered
class GResidual(OneWayTransform):
    r"""The residual map of an equivariant contraction.

    .. math:: y = x + f(x), \qquad \log|\det J| = \log|\det(I + J_f(x))|

    Bijective because Lip(f) < 1 (Banach's fixed-point theorem); equivariant because f is. The inverse is a root, found
    by ``solver``, with gradients by the implicit function theorem.

    Args:
        action: how the group moves events.
        branch: f, an equivariant module with ``lipschitz_bound()``; an exact log-det uses its ``call_and_jacobian``
            where it has one. With a ``context_action`` and ``given(context)``, such as
            :class:`~pyro_gflows.nn.ConditionalBranch`, it makes the layer conditional.
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
        action: LinearAction,
        branch: nn.Module,
        *,
        log_det: LogDet | None = None,
        solver: Solver | None = None,
        fast: Fast = "score",
    ) -> None:
        super().__init__(action, fast=fast, context_action=getattr(branch, "context_action", None))
        self._bound_as_built = check_branch(branch, action)
        self.branch = branch
        self.log_det = ExactLogDet() if log_det is None else log_det
        self.solver = (NewtonSolver() if action.numel <= 3 else BanachSolver()) if solver is None else solver

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of Lip(f), as the weights are now."""
        return bound_now(self.branch)

    def cheap(self, x: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        return self._forth(self._given(context), x)

    def costly(self, y: Tensor, context: Tensor | None) -> tuple[Tensor, Tensor]:
        branch = self._given(context)
        with torch.no_grad(), kernels_once(self.branch):
            root, _ = self.solver(branch, y, self.action_in.event_dim, lipschitz=promised_bound(self.branch))
        x = implicit_root(branch, y, root, self.action_in.event_dim, lipschitz=promised_bound(self.branch))
        return x, -self._forth(branch, x)[1]

    def _given(self, context: Tensor | None) -> Branch:
        if self.context_action is None:
            return self.branch
        given: Branch = self.branch.given(self.require_context(context))  # type: ignore[operator]
        return given

    def _forth(self, branch: Branch, x: Tensor) -> tuple[Tensor, Tensor]:
        value, ladj = self.log_det(
            branch,
            x,
            self.action_in.event_dim,
            lipschitz=promised_bound(self.branch),
            training=self.training,
            orbit=self.action_in.act_all if self.action_in.is_finite else None,
        )
        return x + value, ladj

    def extra_repr(self) -> str:
        certified = certificate(self.branch, self.log_det, self.action_in.numel, as_built=self._bound_as_built)
        return f"{super().extra_repr()}, {certified}"


@full_precision
def bound_now(branch: nn.Module) -> Tensor:
    """An upper bound of a branch's Lipschitz constant, as its weights are now."""
    return torch.as_tensor(branch.lipschitz_bound()).detach()  # type: ignore[operator]


def promised_bound(branch: nn.Module) -> float | Tensor:
    """A bound for solvers and estimators; what a branch promises for all weights costs nothing to compute."""
    return branch.bound if _keeps_a_promise(branch) else bound_now(branch)  # type: ignore[return-value]


def _keeps_a_promise(branch: nn.Module) -> bool:
    return isinstance(branch, LipschitzSum | LipschitzNetwork | LipschitzDenseNetwork | ConditionalBranch)


def certificate(branch: nn.Module, log_det: LogDet, dim: int, *, as_built: float) -> str:
    """What is certified of a branch and of the log-det, for a ``repr``: nothing is computed from the weights.

    Args:
        branch: one that promises a bound for all weights, or any other, whose bound may change with its weights.
        log_det: the estimator.
        dim: numbers in an event.
        as_built: the bound of the branch when the layer was built.
    """
    promised = _keeps_a_promise(branch)
    bound = float(branch.bound) if promised else as_built  # type: ignore[arg-type]
    estimator = log_det.describe(lipschitz=bound, dim=dim)
    return f"Lipschitz bound {bound:.4g}{'' if promised else ' as built'}, log-det {estimator}"


def check_branch(branch: nn.Module, action: LinearAction) -> float:
    """The bound of a branch; TypeError or ValueError unless it is a contraction with a bound, made for this action."""
    bound = _check_bound(branch)
    if getattr(branch, "action", action) != action:
        raise ValueError(f"expected a branch for {action}, got one for {branch.action}")
    return bound


def _check_bound(branch: nn.Module) -> float:
    if not hasattr(branch, "lipschitz_bound"):
        raise TypeError(
            f"expected a branch with a lipschitz_bound() method, got {type(branch).__name__}; build it from "
            "pyro_gflows.nn, or give your module a method that returns an upper bound"
        )
    bound = float(bound_now(branch))
    if not bound < 1:
        raise ValueError(
            f"expected a branch with a Lipschitz bound below 1, got {bound:g}; an unbounded activation (gated) or "
            "an unbounded layer is in it: use the Lipschitz layers and activations of pyro_gflows.nn"
        )
    return bound


# Numbers in an event up to which the log-det is exact in training too, and up to which it is exact in evaluation: that
# takes a dense Jacobian for each row.
_EXACT_UP_TO = 64
_DENSE_UP_TO = 1000

_TRUNCATION = 1e-3  # nats for each number
_PROBES = 4


def _default_log_det(action: LinearAction, branch: nn.Module) -> LogDet:
    if action.numel <= _EXACT_UP_TO:
        return ExactLogDet()
    if action.numel <= _DENSE_UP_TO:
        return RouletteLogDet()
    _check_bound(branch)
    return RouletteLogDet(evaluation=SeriesLogDet.within(_TRUNCATION, lipschitz=promised_bound(branch), probes=_PROBES))


def g_residual(
    action: LinearAction,
    *,
    branch: nn.Module | None = None,
    bound: float = 0.99,
    log_det: LogDet | None = None,
    solver: Solver | None = None,
    fast: Fast = "score",
    context_action: LinearAction | None = None,
) -> GResidual:
    """A residual layer with the branch that suits the action.

    The default log-det follows the size of the event. At most 64 numbers: exact. More: the unbiased roulette in
    training, and in evaluation the exact one up to 1,000 numbers; above, where its dense Jacobian would be too large,
    the power series, cut where the bound leaves at most 0.001 nats for each number, of 4 fixed probes and all their
    group images: an estimate, but deterministic and exactly invariant. Its error is nearly the same for every event;
    ``pyro_gflows.infer.log_det_error`` measures it, and the reports state it. Its cost grows as 1 / (1 - bound): 49
    terms at 0.9, 509 at 0.99, for each probe. ``repr`` says which is in use; ``log_det`` takes another, such as
    ``RouletteLogDet(evaluation=SeriesLogDet(100, probes=32))``, or ``RouletteLogDet()``, which is exact in evaluation.

    Args:
        action: how the group moves events.
        branch: an equivariant contraction; by default ``nn.lipschitz_branch(action, bound=bound)``.
        bound: Lipschitz bound of the default branch.
        log_det: an estimator; by default as above.
        solver: Newton for events of at most 3 numbers, else the Banach iteration.
        fast: "score" (density estimation) or "sample" (guides).
        context_action: how the group moves a context that the default branch reads; None: there is none.

    Raises:
        TypeError: ``action`` is not a LinearAction, or the branch has no ``lipschitz_bound``.
        ValueError: a bound of 1 or more, or a branch made for another action.

    Example:
        >>> from pyro_gflows import ImageAction, VectorAction
        >>> g_residual(VectorAction.plane("D8"), fast="sample").fast
        'sample'
        >>> g_residual(ImageAction("D4", channels=3, size=32), bound=0.9).log_det.evaluation
        SeriesLogDet(series, 49 terms, error <= d sum_(k>49) L^k/k, 4 fixed probes)
    """
    require_linear(action)
    chosen = _default_branch(action, context_action, bound) if branch is None else branch
    if log_det is None:
        log_det = _default_log_det(action, chosen)
    return GResidual(action, chosen, log_det=log_det, solver=solver, fast=fast)


def _default_branch(action: LinearAction, context_action: LinearAction | None, bound: float) -> nn.Module:
    if context_action is None:
        return lipschitz_branch(action, bound=bound)
    return ConditionalBranch(action, context_action, bound=bound)
