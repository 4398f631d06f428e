"""The base class of the solvers of x + f(x) = y, and the Banach iteration."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch, as_branch
from pyro_gflows.numerics.counted import Counted
from pyro_gflows.numerics.jacobian import Branch, event_numel
from pyro_gflows.numerics.precision import guarded_method, refuse_low
from pyro_gflows.numerics.residual_map import as_float
from pyro_gflows.numerics.solver_report import InverseDidNotConverge, SolverReport
from pyro_gflows.numerics.tracing import refuse_tracing, uncompiled
from pyro_gflows.numerics.transforms_active import anywhere, largest
from pyro_gflows.numerics.unfinished import Unfinished, row_norm
from pyro_gflows.serialization.registry import registered

__all__ = ["BanachSolver", "InverseDidNotConverge", "Solver", "SolverReport", "Steps", "row_norm"]

_MOST_ITERATIONS = 10_000


class Solver(ABC):
    """The base class of solvers of x + f(x) = y for a contraction f, row by row.

    A solver computes the inverse of a residual layer, which takes it as ``solver=``. Choose :class:`NewtonSolver` for
    events of few components, else :class:`AndersonSolver`. A call ``solver(f, y, event_dim, lipschitz=...)``
    returns the root x, of the shape ``batch_shape + event_shape`` of y, and a :class:`SolverReport`. A row is one event
    of the batch. A subclass of your own writes ``step``. A row that has reached its tolerance does not change any more,
    so that its root does not depend on the other rows; once enough rows are done, they are left out of the evaluations
    of f, if f is a branch of this package. A row whose residual is not finite is given up. The root carries
    no gradient; :func:`~pyro_gflows.numerics.implicit_root` attaches it.

    Args:
        tolerance: The largest accepted max-norm of y - x - f(x), in the units of the data. With None it is eps^0.8 of
            the dtype (3e-13 in float64, 3e-6 in float32) times max(1, |y|), row by row.
        max_iterations: The largest number of steps; with None it follows from the Lipschitz bound, and is at most
            10,000.
        strict: Whether to raise InverseDidNotConverge above the tolerance.

    Raises:
        ValueError: If the tolerance is not positive, or max_iterations is below 1.

    Example:
        >>> solver: Solver = BanachSolver(tolerance=1e-6)
        >>> root, report = solver(lambda x: 0.5 * x, torch.tensor([3.0]), 1, lipschitz=0.5)
        >>> round(float(root), 4)
        2.0
    """

    steps_per_banach_step = 1  # the most steps after which the residual has shrunk by the Lipschitz constant

    def __init__(
        self, *, tolerance: float | None = None, max_iterations: int | None = None, strict: bool = True
    ) -> None:
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"expected a positive tolerance, got {tolerance}; None chooses it by the dtype")
        if max_iterations is not None and max_iterations < 1:
            raise ValueError(f"expected max_iterations >= 1, got {max_iterations}; None derives it from the bound")
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.strict = strict

    @guarded_method
    def __call__(
        self, f: Branch, y: Tensor, event_dim: int, *, lipschitz: float | Tensor, start: Tensor | None = None
    ) -> tuple[Tensor, SolverReport]:
        """The root, of the shape of y, and the report of the solver.

        Args:
            f: The branch, a map of ``batch_shape + event_shape`` to the same shape, row by row.
            y: The right-hand side, of shape ``batch_shape + event_shape``.
            event_dim: The number of event dimensions.
            lipschitz: An upper bound of the Lipschitz constant of f in the Euclidean norm.
            start: The point of the first step, of the shape of y; by default y itself.

        Raises:
            InverseDidNotConverge: If a row ends above the tolerance and ``strict`` is set.
            RuntimeError: If torch.jit.trace, make_fx or torch.func.linearize is recording.
            TypeError: If y is not of float32 or float64.
        """
        refuse_tracing("the inverse of a residual layer")
        if not y.is_floating_point():
            raise TypeError(f"expected a floating point right-hand side, got {y.dtype}; convert it first")
        refuse_low(y, "a right-hand side")
        bound = as_float(lipschitz)
        event_numel(y, event_dim)
        with torch.no_grad():
            y = y.detach()
            first = y if start is None else start.detach()
            return self._solve(as_branch(f, event_dim), y, first, event_dim=event_dim, lipschitz=bound)

    @uncompiled
    def _solve(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, SolverReport]:
        if y.numel() == 0:
            return y, SolverReport(residual=0.0, iterations=0, converged=True, error_bound=0.0)
        tolerance, counted = self._tolerances(y, event_dim), Counted(f)
        residual = y - x - counted(x) if x is not y else -counted(y)
        limit = self.max_iterations
        if limit is None:
            promised = _promised_iterations(row_norm(residual, event_dim), tolerance, lipschitz)
            limit = min(_MOST_ITERATIONS, self.steps_per_banach_step * promised)
        rows = Unfinished(counted, y, x, residual, tolerance=tolerance, event_dim=event_dim)
        steps, iterations = self._steps(), 0
        while iterations < limit and rows.remain(steps.keep):
            x, residual = steps.step(counted, rows.y, rows.x, rows.residual, event_dim=event_dim, lipschitz=lipschitz)
            rows.update(x, residual)
            iterations += 1
        x, residual = rows.all_rows()
        norm = row_norm(residual, event_dim, math.inf)
        report = SolverReport(
            residual=largest(norm),
            iterations=iterations,
            converged=not anywhere(~(norm <= tolerance)),  # false for NaN
            error_bound=largest(row_norm(residual, event_dim)) / (1 - lipschitz) if lipschitz < 1 else math.inf,
            evaluations=counted.evaluations,
        )
        if self.strict and not report.converged:
            name = type(self).__name__
            raise InverseDidNotConverge(report, solver=name, tolerance=-largest(-tolerance), lipschitz=lipschitz)
        return x, report

    def _steps(self) -> Steps:
        """The steps of one call; a solver whose steps depend on earlier ones returns an object that remembers them."""
        return Steps(self)

    def _tolerances(self, y: Tensor, event_dim: int) -> Tensor:
        scale = row_norm(y, event_dim, math.inf)
        if self.tolerance is not None:
            return torch.full_like(scale, self.tolerance)
        # An infinite row must not make its own tolerance infinite.
        return torch.finfo(y.dtype).eps ** 0.8 * torch.where(scale.isfinite(), scale.clamp(min=1), 1)

    @abstractmethod
    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        """The point after one step from x, and its residual.

        Args:
            f: The branch.
            y: The right-hand side, of shape ``batch_shape + event_shape``.
            x: The present point, of the shape of y.
            residual: The residual y - x - f(x).
            event_dim: The number of event dimensions.
            lipschitz: An upper bound of the Lipschitz constant of f.
        """

    def __repr__(self) -> str:
        tolerance = "by dtype" if self.tolerance is None else f"{self.tolerance:g}"
        limit = "by Lipschitz bound" if self.max_iterations is None else str(self.max_iterations)
        return f"{type(self).__name__}(tolerance={tolerance}, max_iterations={limit}, strict={self.strict})"


class Steps:
    """The steps of one call of a solver, which have no memory.

    Args:
        solver: The solver.
    """

    def __init__(self, solver: Solver) -> None:
        self.solver = solver

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        """The point after one step from x, and its residual; the arguments are those of ``Solver.step``."""
        return self.solver.step(f, y, x, residual, event_dim=event_dim, lipschitz=lipschitz)

    def keep(self, rows: Tensor) -> None:
        """Forget all rows but some, which are all that the next steps get, as one batch dimension.

        Args:
            rows: The indices of these rows in the flattened batch.
        """


@registered
class BanachSolver(Solver):
    """The fixed-point iteration x <- y - f(x), which shrinks the error by the Lipschitz constant in every step.

    Args:
        tolerance: The largest accepted residual, as for :class:`Solver`.
        max_iterations: The largest number of steps, as for :class:`Solver`.
        strict: Whether to raise above the tolerance, as for :class:`Solver`.

    Example:
        >>> y = torch.ones(3, 2, dtype=torch.float64)
        >>> root, report = BanachSolver()(lambda x: 0.5 * x.sin(), y, 1, lipschitz=0.5)
        >>> bool((root + 0.5 * root.sin() - y).abs().max() < 1e-12), report.converged
        (True, True)
    """

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        following = x + residual
        return following, y - following - f(following)


def _promised_iterations(norm: Tensor, tolerance: Tensor, lipschitz: float) -> int:
    """The number of steps after which L^k |r_0| is below the tolerance, doubled for rounding, between 10 and 10,000."""
    if not lipschitz < 1:
        return _MOST_ITERATIONS
    if lipschitz <= 0:
        return 10
    ratio = largest(torch.where(norm.isfinite(), norm / tolerance, 1))
    return min(_MOST_ITERATIONS, 10 + 2 * math.ceil(math.log(max(ratio, 1.0)) / -math.log(lipschitz)))
