"""The common part of the layers that are bijections because their branch is a contraction."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from pyro_gflows.actions import Action, LinearAction, TorusAction
from pyro_gflows.nn import Contraction, CustomContraction, LipschitzSum
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.numerics import (
    AndersonSolver,
    BranchWithPooledJacobian,
    DifferentiableBranch,
    ExactLogDet,
    LogDet,
    NewtonSolver,
    PooledLogDet,
    PooledNewtonSolver,
    ProbeImages,
    ResidualMap,
    Solver,
)
from pyro_gflows.transforms.base import EquivariantTransform
from pyro_gflows.transforms.probe_images import linear_action, probe_images

__all__ = ["ByContraction", "contraction_of", "default_log_det", "default_solver"]


class ByContraction(EquivariantTransform):
    """A transform with a branch whose type is :class:`~pyro_gflows.nn.Contraction`, a log-det and a solver.

    The type of the branch is checked once, when the branch is set. A module of another type that has a
    ``lipschitz_bound()`` is wrapped in a :class:`~pyro_gflows.nn.CustomContraction`; it remains the attribute
    ``branch``, under whose name its weights are saved.
    """

    branch: nn.Module
    log_det: LogDet
    solver: Solver
    _contraction: Contraction
    _bound_as_built: float
    _images: ProbeImages | None

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "branch":
            contraction = contraction_of(value, self.action_in)
            # not as attributes, which would register the branch a second time
            self.__dict__.update(_contraction=contraction, _bound_as_built=_checked_bound(contraction))
        super().__setattr__(name, value)

    def _set_up(self, branch: nn.Module, log_det: LogDet | None, solver: Solver | None) -> None:
        for name, value, kind in (("log_det", log_det, LogDet), ("solver", solver, Solver)):
            if value is not None and not isinstance(value, kind):
                raise TypeError(
                    f"expected {name} to be a {kind.__name__} of pyro_gflows.numerics, got {type(value).__name__}"
                )
        self.branch = branch
        self.log_det = default_log_det(self._contraction) if log_det is None else log_det
        self.solver = default_solver(self._contraction) if solver is None else solver
        self._images = probe_images(linear_action(self._contraction.action))

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant of f, for the present weights."""
        return self._contraction.lipschitz_bound().detach()

    def kernel_layers(self) -> list[KernelLayer]:
        """The layers of the branch whose kernels a composition may make together with those of its other layers.

        There are none where an estimator replays the branch in the backward pass, after the composition is done.
        """
        return self._contraction.kernel_layers() if isinstance(self.log_det, ExactLogDet) else []

    @property
    def may_jump(self) -> bool:
        """Whether the log-det in evaluation is an estimate that jumps where the canonical form of an event changes."""
        note = "" if self._images is None else self._images.note
        bound, dim = self._contraction.known_bound(), self.action_in.numel
        return bool(note) and note in self.log_det.describe(lipschitz=bound, dim=dim, images=self._images)

    def _residual_map(self, f: DifferentiableBranch) -> ResidualMap:
        """The map x -> x + f(x), where f is the branch for one context, or its negative."""
        bound = self._contraction.known_bound()
        return ResidualMap(f, self.action_in.event_dim, bound, training=self.training, images=self._images)

    def extra_repr(self) -> str:
        promised, images = self._contraction.bound, self._images
        bound = self._bound_as_built if promised is None else promised
        log_det = self.log_det.describe(lipschitz=bound, dim=self.action_in.numel, images=images)
        certified = f"Lipschitz bound {bound:.4g}{' as built' if promised is None else ''}, log-det {log_det}"
        return f"{super().extra_repr()}, {certified}"


def default_log_det(branch: Contraction) -> LogDet:
    """The exact log-det of a branch: in a time linear in the rows where the branch reads them by pooled features."""
    return PooledLogDet() if isinstance(branch, BranchWithPooledJacobian) else ExactLogDet()


# The sizes of an event up to which a Newton step is quicker than the evaluations that it saves: with a Jacobian by
# automatic differentiation, and with one in closed form.
_NEWTON_UP_TO = 3
_NEWTON_IN_CLOSED_FORM_UP_TO = 16


def default_solver(branch: Contraction) -> Solver:
    """Newton's method where a step is quick, else Anderson acceleration."""
    if isinstance(branch, BranchWithPooledJacobian):
        return PooledNewtonSolver()
    most = _NEWTON_IN_CLOSED_FORM_UP_TO if isinstance(branch, LipschitzSum) else _NEWTON_UP_TO
    return NewtonSolver() if branch.action.numel <= most else AndersonSolver()


def contraction_of(branch: nn.Module, action: Action) -> Contraction:
    """The branch as a Contraction for this action.

    Raises:
        TypeError: The branch has no ``lipschitz_bound``, or the action is neither a LinearAction nor a TorusAction.
        ValueError: The branch is made for another action.
    """
    if not isinstance(action, LinearAction | TorusAction):
        raise TypeError(
            f"expected a LinearAction or a TorusAction, for which x + f(x) is equivariant if f is, got {action}"
        )
    contraction = branch if isinstance(branch, Contraction) else CustomContraction(branch, action)
    if contraction.action != action:
        raise ValueError(f"expected a branch for {action}, got one for {contraction.action}")
    return contraction


def _checked_bound(contraction: Contraction) -> float:
    bound = float(contraction.lipschitz_bound().detach())
    if not bound < 1:
        raise ValueError(
            f"expected a branch with a Lipschitz bound below 1, got {bound:g}; an unbounded activation (gated) or "
            "an unbounded layer is in it: use the Lipschitz layers and activations of pyro_gflows.nn"
        )
    return bound
