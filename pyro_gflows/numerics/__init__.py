"""Stateless mathematics: log-det estimators, root solvers, spectral norms and matrix functions."""

from pyro_gflows.numerics.exact import ExactLogDet, log_abs_det
from pyro_gflows.numerics.implicit import implicit_root
from pyro_gflows.numerics.jacobian import Branch, dense_jacobian, event_numel
from pyro_gflows.numerics.log_det import LogDet, Orbit
from pyro_gflows.numerics.newton import NewtonSolver
from pyro_gflows.numerics.solvers import BanachSolver, InverseDidNotConverge, Solver, SolverReport

__all__ = [
    "BanachSolver",
    "Branch",
    "ExactLogDet",
    "InverseDidNotConverge",
    "LogDet",
    "NewtonSolver",
    "Orbit",
    "Solver",
    "SolverReport",
    "dense_jacobian",
    "event_numel",
    "implicit_root",
    "log_abs_det",
]
