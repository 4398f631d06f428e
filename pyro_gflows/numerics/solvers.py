"""The protocol of the solvers of x + f(x) = y, and the Banach iteration."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.numerics.branch import DifferentiableBranch, as_branch
from pyro_gflows.numerics.jacobian import Branch, event_numel
from pyro_gflows.numerics.precision import guarded_method, refuse_low
from pyro_gflows.numerics.residual_map import as_float
from pyro_gflows.numerics.tracing import refuse_tracing
from pyro_gflows.numerics.transforms_active import anywhere, largest
from pyro_gflows.serialization.registry import registered

__all__ = ["BanachSolver", "InverseDidNotConverge", "Solver", "SolverReport", "row_norm"]


@dataclass(frozen=True)
class SolverReport:
    """How a solver ended: all figures are the worst over the rows of the batch.

    Arguments:
        residual: max-norm of y - x - f(x), in the unit of the data.
        iterations: steps taken.
        converged: whether every row reached the tolerance.
        error_bound: residual / (1 - L) in the Euclidean norm, which bounds |x - x*|_2; inf where L >= 1.
    """

    residual: float
    iterations: int
    converged: bool
    error_bound: float


class InverseDidNotConverge(RuntimeError):
    """A solver ended above its tolerance. ``report`` holds the figures."""

    def __init__(self, report: SolverReport, *, solver: str, tolerance: float, lipschitz: float) -> None:
        self.report = report
        if math.isfinite(report.residual):
            advice = (
                "Raise max_iterations or the tolerance, use float64, or check that the branch keeps its Lipschitz "
                "bound; strict=False returns the best root with its report."
            )
        else:
            advice = "The residual is not finite: look for NaN or inf in the input and in the parameters."
        super().__init__(
            f"{solver} stopped after {report.iterations} iterations with residual {report.residual:.3g}, above the "
            f"tolerance {tolerance:.3g} (Lipschitz bound {lipschitz:.6g}, error of the root at most "
            f"{report.error_bound:.3g}). {advice}"
        )


class Solver(ABC):
    """Solves x + f(x) = y for a contraction f, row by row.

    A subclass writes ``step``. A row that has reached its tolerance is left as it is, so its root does not depend on
    the other rows; a row whose residual is not finite is given up. The root carries no gradient: attach it with
    :func:`~pyro_gflows.numerics.implicit_root`.

    Arguments:
        tolerance: the largest accepted max-norm of y - x - f(x), in the unit of the data. None: eps^0.8 of the dtype
            (3e-13 in float64, 3e-6 in float32) times max(1, |y|), row by row.
        max_iterations: None: what the Lipschitz bound promises to be enough, and at most 10,000.
        strict: whether to raise InverseDidNotConverge above the tolerance.
    """

    def __init__(
        self, *, tolerance: float | None = None, max_iterations: int | None = None, strict: bool = True
    ) -> None:
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"expected a positive tolerance, received {tolerance}; None chooses it by the dtype")
        if max_iterations is not None and max_iterations < 1:
            raise ValueError(f"expected max_iterations >= 1, received {max_iterations}; None derives it from the bound")
        self.tolerance = tolerance
        self.max_iterations = max_iterations
        self.strict = strict

    @guarded_method
    def __call__(
        self, f: Branch, y: Tensor, event_dim: int, *, lipschitz: float | Tensor
    ) -> tuple[Tensor, SolverReport]:
        """The root, of the shape of y, and its report.

        Arguments:
            f: the branch, of batch_shape + event_shape to the same shape, row by row.
            y: the right-hand side, of shape batch_shape + event_shape.
            event_dim: the number of event dimensions.
            lipschitz: an upper bound of the Lipschitz constant of f in the Euclidean norm.

        Raises:
            InverseDidNotConverge: where a row ends above the tolerance and ``strict`` holds.
            RuntimeError: torch.jit.trace, make_fx or torch.func.linearize is recording.
        """
        refuse_tracing("the inverse of a residual layer")
        if not y.is_floating_point():
            raise TypeError(f"expected a floating point right-hand side, received {y.dtype}; convert it first")
        refuse_low(y, "a right-hand side")
        bound = as_float(lipschitz)
        event_numel(y, event_dim)
        with torch.no_grad():
            return self._solve(as_branch(f, event_dim), y.detach(), event_dim, bound)

    def _solve(
        self, f: DifferentiableBranch, y: Tensor, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, SolverReport]:
        if y.numel() == 0:
            return y, SolverReport(residual=0.0, iterations=0, converged=True, error_bound=0.0)
        tolerance = self._tolerances(y, event_dim)
        x, residual = y, -f(y)
        norm = row_norm(residual, event_dim, math.inf)
        limit = self.max_iterations or _promised_iterations(row_norm(residual, event_dim), tolerance, lipschitz)
        iterations = 0
        while iterations < limit:
            active = norm.isfinite() & (norm > tolerance)
            if not anywhere(active):
                break
            moved, moved_residual = self.step(f, y, x, residual, event_dim=event_dim, lipschitz=lipschitz)
            mask = active.reshape(active.shape + (1,) * event_dim)
            x = torch.where(mask, moved, x)
            residual = torch.where(mask, moved_residual, residual)
            norm = row_norm(residual, event_dim, math.inf)
            iterations += 1
        report = SolverReport(
            residual=largest(norm),
            iterations=iterations,
            converged=not anywhere(~(norm <= tolerance)),  # NaN is not below
            error_bound=largest(row_norm(residual, event_dim)) / (1 - lipschitz) if lipschitz < 1 else math.inf,
        )
        if self.strict and not report.converged:
            name = type(self).__name__
            raise InverseDidNotConverge(report, solver=name, tolerance=-largest(-tolerance), lipschitz=lipschitz)
        return x, report

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
        """One step from x, whose residual y - x - f(x) is given: the new point and its residual."""

    def __repr__(self) -> str:
        tolerance = "by dtype" if self.tolerance is None else f"{self.tolerance:g}"
        limit = "by Lipschitz bound" if self.max_iterations is None else str(self.max_iterations)
        return f"{type(self).__name__}(tolerance={tolerance}, max_iterations={limit}, strict={self.strict})"


@registered
class BanachSolver(Solver):
    """The fixed-point iteration x <- y - f(x), which contracts the error by the Lipschitz constant at every step.

    >>> y = torch.ones(3, 2, dtype=torch.float64)
    >>> root, report = BanachSolver()(lambda x: 0.5 * x.sin(), y, 1, lipschitz=0.5)
    >>> bool((root + 0.5 * root.sin() - y).abs().max() < 1e-12), report.converged
    (True, True)
    """

    def step(
        self, f: DifferentiableBranch, y: Tensor, x: Tensor, residual: Tensor, *, event_dim: int, lipschitz: float
    ) -> tuple[Tensor, Tensor]:
        moved = x + residual
        return moved, y - moved - f(moved)


def row_norm(x: Tensor, event_dim: int, order: float = 2) -> Tensor:
    """The norm of each event, of the batch shape."""
    return torch.linalg.vector_norm(x.flatten(x.dim() - event_dim), order, dim=-1)


def _promised_iterations(norm: Tensor, tolerance: Tensor, lipschitz: float) -> int:
    """Steps after which L^k |r_0| is below the tolerance, doubled for rounding, within 10 and 10,000."""
    if not lipschitz < 1:
        return 10_000
    if lipschitz <= 0:
        return 10
    ratio = largest(torch.where(norm.isfinite(), norm / tolerance, 1))
    return min(10_000, 10 + 2 * math.ceil(math.log(max(ratio, 1.0)) / -math.log(lipschitz)))
