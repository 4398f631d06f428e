"""G-monotone layers: residual layers in the form of a monotone operator."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.deprecation import renamed_arguments
from pyro_gflows.nn import kernels_once
from pyro_gflows.nn.contraction import negative
from pyro_gflows.numerics import DifferentiableBranch, LogDet, Solver, implicit_root
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.by_contraction import ByContraction

__all__ = ["GMonotone"]


@renamed_arguments(branch="contraction")
@registered
class GMonotone(ByContraction):
    r"""A bijection that can stretch more than a residual layer: x and y are residual maps of one hidden point u.

    It is the Cayley transform of a contraction f, for densities with sharp modes. Each direction solves for a root, so
    a call costs more than one of :class:`GResidual`.

    .. math:: x = \tfrac12 (u + f(u)), \qquad y = \tfrac12 (u - f(u)), \qquad
        \log\Big|\det\frac{dy}{dx}\Big| = \log|\det(I - J_f(u))| - \log|\det(I + J_f(u))|

    Here x and y are events, u has their shape, and J_f(u) is the Jacobian of f at u. The map is bijective because f has
    a Lipschitz constant c < 1, so that x determines u, and so does y (Banach's fixed-point theorem). It is equivariant
    because f is. Slopes reach from (1 - c) / (1 + c) to (1 + c) / (1 - c), while those of a residual layer stay below
    2. Gradients of the root come from the implicit function theorem.

    Args:
        action: How the group acts on events.
        contraction: f, as for :class:`GResidual`, without a context.
        log_det: The estimator of the log-det; exact by default.
        solver: How to find u; by default Newton's method for events of at most 3 components (16 for a LipschitzSum),
            else :class:`~pyro_gflows.numerics.AndersonSolver`.

    Raises:
        TypeError: f has no ``lipschitz_bound``; or the estimator or the solver is of another type.
        ValueError: The bound of f is 1 or more, or not finite; f is made for another action, or takes a context.

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

    log_dets = 2  # a call estimates two log-dets, each with an error of its own

    def __init__(
        self,
        action: LinearAction,
        contraction: nn.Module,
        *,
        log_det: LogDet | None = None,
        solver: Solver | None = None,
    ) -> None:
        super().__init__(action)
        self._set_up(contraction, log_det, solver)
        if self._contraction.context_action is not None:
            reads = self._contraction.context_action
            raise ValueError(f"expected a branch without a context, got one that reads {reads}")

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._across(self._contraction, negative(self._contraction), x)

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        return self._across(negative(self._contraction), self._contraction, y)

    def _across(self, there: DifferentiableBranch, back: DifferentiableBranch, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map from (u + there(u)) / 2 to (u + back(u)) / 2."""
        first, second = self._residual_map(there), self._residual_map(back)
        event_dim, bound = first.event_dim, first.lipschitz
        with torch.no_grad(), kernels_once(self.branch):
            root, _ = self.solver(there, 2 * x, event_dim, lipschitz=bound)
        with kernels_once(self.branch):
            u = implicit_root(there, 2 * x, root, event_dim, lipschitz=bound)
            _, before = self.log_det.value_and_log_det(first, u)
            value, after = self.log_det.value_and_log_det(second, u)
        return 0.5 * (u + value), after - before
