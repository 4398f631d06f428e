"""G-residual flows: x + f(x) with an equivariant contraction f."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, RowsAction, TorusAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.nn import ConditionalBranch, Contraction, PooledBranch, kernels_once, lipschitz_branch, takes_factories
from pyro_gflows.nn.rows_chain import require_rows
from pyro_gflows.numerics import (
    BranchWithPooledJacobian,
    DifferentiableBranch,
    ExactLogDet,
    KrylovLogDet,
    LogDet,
    Solver,
    implicit_root,
)
from pyro_gflows.serialization.registry import registered
from pyro_gflows.spaces import Euclidean, Torus
from pyro_gflows.transforms.by_contraction import ByContraction, contraction_of, default_log_det
from pyro_gflows.transforms.masked import TakesMask
from pyro_gflows.transforms.one_way import Fast, OneWayTransform

__all__ = ["GResidual", "g_residual"]


@renamed_arguments(branch="contraction")
@registered
class GResidual(TakesMask, ByContraction, OneWayTransform):
    r"""A residual layer, x + f(x) with an equivariant contraction f: it needs no split of the event.

    It works for every action, a single irreducible vector included, where a coupling has nothing to split.

    .. math:: y = x + f(x), \qquad \log|\det J| = \log|\det(I + J_f(x))|

    On a torus, y = x + f(x) modulo 2 pi, and f is periodic and maps angles to displacements (:class:`PeriodicNetwork`).

    Here f is a map of events that brings any two of them closer together (a contraction), and J_f(x) is its Jacobian at
    x. Events keep their shape. The map is bijective because f has a Lipschitz constant below 1 (Banach's fixed-point
    theorem), and equivariant because f is. ``solver`` finds the inverse as a root; its gradients come from the implicit
    function theorem.

    Args:
        action: How the group acts on events.
        contraction: f, a :class:`~pyro_gflows.nn.Contraction`; one with a ``context_action``, such as
            :class:`~pyro_gflows.nn.ConditionalBranch`, makes the layer conditional. Any other equivariant module with a
            ``lipschitz_bound()`` is wrapped in a :class:`~pyro_gflows.nn.CustomContraction`.
        log_det: The estimator of the log-det; exact by default, and in a time linear in the number of rows where f is
            a :class:`~pyro_gflows.nn.PooledBranch`.
        solver: How to invert; by default Newton's method for events of at most 3 components (16 for a LipschitzSum) and
            for a PooledBranch, else :class:`~pyro_gflows.numerics.AndersonSolver`.
        fast: Which direction evaluates f once: "score" (density estimation) or "sample" (guides).

    Raises:
        TypeError: f has no ``lipschitz_bound``; or the estimator or the solver is of another type.
        ValueError: The bound of f is 1 or more, or not finite; or f is made for another action.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649; Residual Flows, arXiv:1906.02735.

    Example:
        >>> from pyro_gflows import VectorAction, g_residual
        >>> layer = g_residual(VectorAction.plane("D8"))
        >>> layer(torch.zeros(5, 2)).shape
        torch.Size([5, 2])
    """

    spaces = (Euclidean, Torus)

    def __init__(
        self,
        action: LinearAction | TorusAction,
        contraction: nn.Module,
        *,
        log_det: LogDet | None = None,
        solver: Solver | None = None,
        fast: Fast = "score",
    ) -> None:
        super().__init__(action, fast=fast)
        self._set_up(contraction, log_det, solver)
        self._context_action = self.require_context_action(self._contraction.context_action)

    def one_pass(self, x: Tensor, context: Tensor | None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        value, ladj = self.log_det.value_and_log_det(self._residual_map(self._under(context, mask)), x)
        return self.action_in.space.project(x + value), ladj

    def many_passes(self, y: Tensor, context: Tensor | None, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        residual_map = self._residual_map(self._under(context, mask))
        f, event_dim, bound = residual_map.f, residual_map.event_dim, residual_map.lipschitz
        # without gradients the log-det takes the kernels of the solver; with them it has a graph of its own
        with contextlib.nullcontext() if torch.is_grad_enabled() else kernels_once(self.branch):
            with torch.no_grad(), kernels_once(self.branch):
                root, _ = self.solver(f, y, event_dim, lipschitz=bound)
            x = self.action_in.space.project(implicit_root(f, y, root, event_dim, lipschitz=bound))
            return x, -self.log_det.value_and_log_det(residual_map, x)[1]

    def mask_refusal(self) -> str:
        branch = self._contraction
        return "" if isinstance(branch, PooledBranch) else f"its branch {type(branch).__name__} is no PooledBranch"

    def apply_masked(self, x: Tensor, mask: Tensor, context: Tensor | None, *, inverse: bool) -> tuple[Tensor, Tensor]:
        passes = self.one_pass if inverse == (self.fast == "score") else self.many_passes
        return passes(x, context, mask)

    def _under(self, context: Tensor | None, mask: Tensor | None) -> DifferentiableBranch:
        if mask is not None and isinstance(self._contraction, PooledBranch):
            return self._contraction.masked(mask, context)
        if self.context_action is None:
            return self._contraction
        return self._contraction.condition(self.require_context(context))


# The sizes of an event up to which the log-det is exact: in training, where a Krylov space is quicker above (on images
# of 8 x 8 pixels by a quarter, which the noise of its probes is not worth: benchmarks/README.md, digits); and in
# evaluation, where a dense Jacobian for each row costs less than an estimate whose error is as small.
_EXACT_UP_TO = 32
_EXACT_IMAGES_UP_TO = 64
_DENSE_UP_TO = 1000


def _default_log_det(action: LinearAction | TorusAction, branch: Contraction) -> LogDet:
    exact_up_to = _EXACT_UP_TO if action.event_dim == 1 else _EXACT_IMAGES_UP_TO
    if action.numel <= exact_up_to or isinstance(branch, BranchWithPooledJacobian):
        return default_log_det(branch)
    return KrylovLogDet(evaluation=ExactLogDet() if action.numel <= _DENSE_UP_TO else None)


@takes_factories("branch")
def g_residual(
    action: LinearAction | TorusAction,
    *,
    branch: Callable[[Any], nn.Module] | None = None,
    bound: float = 0.99,
    log_det: LogDet | None = None,
    solver: Solver | None = None,
    fast: Fast = "score",
    context_action: LinearAction | None = None,
) -> GResidual:
    """A residual layer with a branch and a log-det that suit the action.

    The default log-det depends on the size of the event:

    - Up to 32 components (64 on images), and on rows of any number, it is exact.
    - Up to 1,000 components training estimates it from the Krylov spaces of random probes
      (:class:`~pyro_gflows.numerics.KrylovLogDet`), and evaluation is exact.
    - Above, a dense Jacobian would be too large. Evaluation then takes the Krylov spaces of 4 fixed probes and all
      their images under the group. This estimate is deterministic and exactly invariant.

    Under a finite group of more than 64 elements one image of each probe follows the event, in place of all images; the
    estimate may then jump where the canonical element of the event changes. The error is nearly the same for every
    event; ``pyro_gflows.evaluation.log_det_error`` measures it, and reports state it. The cost depends on the branch as
    it is, not on its bound: usually 3 to 8 products with the Jacobian for each probe. ``repr`` shows the estimator in
    use. ``log_det`` takes another one, such as ``KrylovLogDet(probes=32)``, or ``KrylovLogDet(evaluation=
    ExactLogDet())``, which is exact in evaluation.

    Args:
        action: How the group acts on events.
        branch: Makes the equivariant contraction from the action, such as ``functools.partial(LipschitzNetwork,
            width=8)``; by default ``nn.lipschitz_branch(action, bound=bound)``. For a module that exists already, take
            :class:`GResidual`.
        bound: Lipschitz bound of the default branch.
        log_det: The estimator of the log-det; by default as above.
        solver: How to invert; by default as for :class:`GResidual`.
        fast: "score" (density estimation) or "sample" (guides).
        context_action: How the group acts on a context that the default branch reads; None: there is none.

    Raises:
        TypeError: ``action`` is neither a LinearAction nor a TorusAction, or the branch has no ``lipschitz_bound``.
        ValueError: The bound is 1 or more, or the factory makes a branch for another action.

    Example:
        >>> from pyro_gflows import ImageAction, VectorAction
        >>> g_residual(VectorAction.plane("D8"), fast="sample").fast
        'sample'
        >>> g_residual(ImageAction("D4", copies=3, size=32), bound=0.9).log_det
        KrylovLogDet(Krylov, at most 64 products, tolerance 1e-05 for each component, 4 fixed probes)
    """
    if not isinstance(action, TorusAction):
        require_linear(action)
    chosen = _default_branch(action, context_action, bound) if branch is None else branch(action)
    if log_det is None:
        log_det = _default_log_det(action, contraction_of(chosen, action))
    return GResidual(action, chosen, log_det=log_det, solver=solver, fast=fast)


def _default_branch(
    action: LinearAction | TorusAction, context_action: LinearAction | None, bound: float
) -> Contraction:
    if context_action is None:
        return lipschitz_branch(action, bound=bound)
    if isinstance(action, RowsAction):
        return PooledBranch(action, bound=bound, context_action=require_rows(context_action))
    if isinstance(action, TorusAction):
        raise TypeError(f"expected no context_action for {action}: no default branch on angles reads a context")
    return ConditionalBranch(action, context_action, bound=bound)
