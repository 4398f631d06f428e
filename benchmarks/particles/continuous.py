"""The continuous flows of the table, as densities of a target."""

from __future__ import annotations

from benchmarks.particles.cnf import ContinuousTransform, GraphField, RadialField
from benchmarks.particles.problems import Problem
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows import EquivariantFlow

__all__ = ["graph_cnf", "radial_cnf"]

REACH = 4.0  # the largest distance that the kernel resolves, in units of the scale of the data


def radial_cnf(problem: Problem, *, centers: int = 24, times: int = 10, tolerance: float = 1e-5) -> EquivariantFlow:
    """A flow along a sum over pairs, with the divergence in closed form."""
    field = RadialField(problem.target.n, problem.target.d, reach=REACH, centers=centers, times=times)
    return _flow(field, problem, tolerance)


def graph_cnf(problem: Problem, *, width: int, layers: int, tolerance: float = 1e-5) -> EquivariantFlow:
    """A flow along the velocity of a graph network, with the exact divergence by (n - 1) d derivatives."""
    return _flow(GraphField(problem.target.n, problem.target.d, width=width, layers=layers), problem, tolerance)


def _flow(field: RadialField | GraphField, problem: Problem, tolerance: float) -> EquivariantFlow:
    layer = ContinuousTransform(field, problem.action, scale=problem.scale, tolerance=tolerance)
    return EquivariantFlow(InvariantNormal(problem.action), [layer])
