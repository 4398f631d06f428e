"""How a solver of x + f(x) = y ended, and the error of one that did not converge."""

from __future__ import annotations

import math
from dataclasses import dataclass

__all__ = ["InverseDidNotConverge", "SolverReport"]


@dataclass(frozen=True)
class SolverReport:
    """How a solver ended; all figures are the worst over the rows of the batch.

    Args:
        residual: The max-norm of y - x - f(x), in the units of the data.
        iterations: The number of steps.
        converged: Whether every row reached the tolerance.
        error_bound: The Euclidean norm of the residual over 1 - L, which bounds the error of the root; inf if L >= 1.
        evaluations: How often the branch was evaluated, alone or with its Jacobian. In later steps these evaluations
            may leave out rows that have reached the tolerance.

    Example:
        >>> import torch
        >>> from pyro_gflows.numerics import BanachSolver
        >>> root, report = BanachSolver()(lambda x: 0.5 * x, torch.ones(1), 1, lipschitz=0.5)
        >>> report.converged, report.error_bound < 1e-5
        (True, True)
    """

    residual: float
    iterations: int
    converged: bool
    error_bound: float
    evaluations: int = 0


class InverseDidNotConverge(RuntimeError):
    """The error of a solver that ended above its tolerance.

    Args:
        report: How the solver ended; also an attribute of the error.
        solver: The name of the solver.
        tolerance: The tolerance.
        lipschitz: The Lipschitz bound of the branch.

    Example:
        >>> import torch
        >>> from pyro_gflows.numerics import BanachSolver
        >>> try:
        ...     BanachSolver(max_iterations=1)(lambda x: 0.9 * x, torch.ones(1), 1, lipschitz=0.9)
        ... except InverseDidNotConverge as error:
        ...     print(error.report.iterations, error.report.converged)
        1 False
    """

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
