"""The finite flows of the table: pair potentials, residual layers of many bodies, and augmented couplings."""

from __future__ import annotations

from benchmarks.particles.problems import Problem
from pyro_gflows.actions import ParticleAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows import AugmentedFlow, EquivariantFlow, g_augmented_particle_flow
from pyro_gflows.transforms import EquivariantTransform, GActNorm, GPairPotential, InCoordinates, g_residual
from pyro_gflows.transforms.one_way import Fast

__all__ = ["augmented_coupling", "many_body", "pair_potentials"]


def pair_potentials(
    problem: Problem, *, layers: int, knots: int = 32, limit: float = 5.0, fast: Fast = "score"
) -> EquivariantFlow:
    """Gradient maps of radial functions of the distances, with a scale after each; distances are scaled by the data."""
    action = problem.action
    parts: list[EquivariantTransform] = []
    for _ in range(layers):
        parts += [GPairPotential(action, knots=knots, limit=limit, fast=fast), scale(action)]
    return EquivariantFlow(InvariantNormal(action), parts)


def many_body(problem: Problem, *, layers: int, fast: Fast = "score") -> EquivariantFlow:
    """Residual layers of the orthonormal coordinates whose branches read all particles, with a scale after each."""
    action = problem.action
    parts: list[EquivariantTransform] = []
    for _ in range(layers):
        parts += [InCoordinates(g_residual(action.coordinates, fast=fast), action), scale(action)]
    return EquivariantFlow(InvariantNormal(action), parts)


def augmented_coupling(problem: Problem, *, layers: int, width: int, depth: int = 2, copies: int = 1) -> AugmentedFlow:
    """Couplings of the positions and of clouds of auxiliary vectors; figures are bounds or of the joint density."""
    return g_augmented_particle_flow(problem.action, copies=copies, layers=layers, width=width, depth=depth)


def scale(action: ParticleAction) -> InCoordinates:
    """One learnable scale of all coordinates, which the data set at the start."""
    return InCoordinates(GActNorm(action.coordinates), action)
