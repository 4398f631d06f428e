"""Stateless mathematics: log-det estimators, root solvers, spectral norms and matrix functions.

Log-determinants of residual layers:
    LogDet, ExactLogDet, KrylovLogDet, KrylovReport, SeriesLogDet, RouletteLogDet, ShearLogDet, PooledLogDet,
    ConstantMemory, FixedProbes, ResidualMap, ProbeImages, OrbitAverage, CarriedProbes, Orbit

Solvers:
    AndersonSolver, BanachSolver, NewtonSolver, PooledNewtonSolver, DampedNewtonSolver, Solver, SolverReport,
    InverseDidNotConverge, implicit_root

Derivatives of branches:
    Branch, DifferentiableBranch, BranchWithJacobian, BranchWithPullbacks, BranchWithPooledJacobian, PooledJacobian,
    PooledBlock, ShearBranch, Product, as_branch, dense_jacobian, jacobian_by_autograd, pullback, pullbacks

Matrices:
    matrix_exp, expm_apply, limit_norm, low_rank_matrix, low_rank_expm_apply, log_abs_det, positive_log_det,
    spectral_norm, conv_norm_bound, largest_eigenvalue_bound

Functions on tori and differential equations:
    periodic_grid, fourier_coefficients, solve_poisson, trigonometric_derivatives, runge_kutta,
    runge_kutta_with_jacobian

Splines, tests and memory:
    rational_quadratic, monotone_spline, circular_spline, two_sample_test, TwoSampleResult, pareto_shape, replayed,
    replayable, event_numel, as_float
"""

from pyro_gflows.deprecation import moved_names
from pyro_gflows.numerics.anderson import AndersonSolver
from pyro_gflows.numerics.branch import (
    BranchWithJacobian,
    BranchWithPullbacks,
    DifferentiableBranch,
    as_branch,
    jacobian_by_autograd,
    pullbacks,
)
from pyro_gflows.numerics.cholesky_log_det import positive_log_det
from pyro_gflows.numerics.circular_splines import circular_spline
from pyro_gflows.numerics.constant_memory import ConstantMemory
from pyro_gflows.numerics.damped_newton import DampedNewtonSolver
from pyro_gflows.numerics.exact import ExactLogDet, log_abs_det
from pyro_gflows.numerics.fixed_probes import FixedProbes
from pyro_gflows.numerics.implicit import implicit_root
from pyro_gflows.numerics.jacobian import Branch, Product, dense_jacobian, event_numel, pullback
from pyro_gflows.numerics.krylov import KrylovLogDet
from pyro_gflows.numerics.krylov_report import KrylovReport
from pyro_gflows.numerics.log_det import LogDet
from pyro_gflows.numerics.matrix_functions import (
    expm_apply,
    limit_norm,
    low_rank_expm_apply,
    low_rank_matrix,
    matrix_exp,
)
from pyro_gflows.numerics.newton import NewtonSolver
from pyro_gflows.numerics.pareto import pareto_shape
from pyro_gflows.numerics.pooled import BranchWithPooledJacobian, PooledBlock, PooledJacobian
from pyro_gflows.numerics.pooled_log_det import PooledLogDet, PooledNewtonSolver
from pyro_gflows.numerics.probe_images import CarriedProbes, Orbit, OrbitAverage, ProbeImages
from pyro_gflows.numerics.rational_quadratics import monotone_spline, rational_quadratic
from pyro_gflows.numerics.replay import replayable, replayed
from pyro_gflows.numerics.residual_map import ResidualMap, as_float
from pyro_gflows.numerics.roulette import RouletteLogDet
from pyro_gflows.numerics.runge_kutta_steps import runge_kutta, runge_kutta_with_jacobian
from pyro_gflows.numerics.series import SeriesLogDet
from pyro_gflows.numerics.shear import ShearBranch, ShearLogDet
from pyro_gflows.numerics.solver_report import InverseDidNotConverge, SolverReport
from pyro_gflows.numerics.solvers import BanachSolver, Solver
from pyro_gflows.numerics.spectral import conv_norm_bound, largest_eigenvalue_bound, spectral_norm
from pyro_gflows.numerics.trigonometric import (
    fourier_coefficients,
    periodic_grid,
    solve_poisson,
    trigonometric_derivatives,
)
from pyro_gflows.numerics.two_sample import TwoSampleResult, two_sample_test

__all__ = [
    "AndersonSolver",
    "BanachSolver",
    "Branch",
    "BranchWithJacobian",
    "BranchWithPooledJacobian",
    "BranchWithPullbacks",
    "CarriedProbes",
    "ConstantMemory",
    "DampedNewtonSolver",
    "DifferentiableBranch",
    "ExactLogDet",
    "FixedProbes",
    "InverseDidNotConverge",
    "KrylovLogDet",
    "KrylovReport",
    "LogDet",
    "NewtonSolver",
    "Orbit",
    "OrbitAverage",
    "PooledBlock",
    "PooledJacobian",
    "PooledLogDet",
    "PooledNewtonSolver",
    "ProbeImages",
    "Product",
    "ResidualMap",
    "RouletteLogDet",
    "SeriesLogDet",
    "ShearBranch",
    "ShearLogDet",
    "Solver",
    "SolverReport",
    "TwoSampleResult",
    "as_branch",
    "as_float",
    "circular_spline",
    "conv_norm_bound",
    "dense_jacobian",
    "event_numel",
    "expm_apply",
    "fourier_coefficients",
    "implicit_root",
    "jacobian_by_autograd",
    "largest_eigenvalue_bound",
    "limit_norm",
    "log_abs_det",
    "low_rank_expm_apply",
    "low_rank_matrix",
    "matrix_exp",
    "monotone_spline",
    "pareto_shape",
    "periodic_grid",
    "positive_log_det",
    "pullback",
    "pullbacks",
    "rational_quadratic",
    "replayable",
    "replayed",
    "runge_kutta",
    "runge_kutta_with_jacobian",
    "solve_poisson",
    "spectral_norm",
    "trigonometric_derivatives",
    "two_sample_test",
]

__getattr__ = moved_names(
    __name__,
    {
        "cap_norm": "pyro_gflows.numerics:limit_norm",
    },
)
