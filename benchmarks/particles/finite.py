"""The finite flows of the table: pair potentials, residual layers, augmented couplings, and internal coordinates."""

from __future__ import annotations

from typing import Any

from benchmarks.particles.problems import Problem
from pyro_gflows.actions import ParticleAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows import (
    AugmentedFlow,
    EquivariantFlow,
    g_augmented_particle_flow,
    g_placement_flow,
    symmetrized_internal_coordinates,
)
from pyro_gflows.transforms import EquivariantTransform, GActNorm, GPairPotential, InCoordinates, g_graph_residual
from pyro_gflows.transforms.one_way import Fast

__all__ = ["augmented_coupling", "internal_coordinates", "many_body", "pair_potentials", "placement"]

# distances between which nearly all pairs are
DISTANCES = {"dw4": (1.0, 9.0), "lj13": (0.65, 4.0)}


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
    """Residual layers with messages along the differences of particles, which are no gradients; a scale after each."""
    action = problem.action
    parts: list[EquivariantTransform] = []
    for _ in range(layers):
        parts += [g_graph_residual(action, fast=fast), scale(action)]
    return EquivariantFlow(InvariantNormal(action), parts)


def augmented_coupling(problem: Problem, *, layers: int, width: int, depth: int = 2, copies: int = 1) -> AugmentedFlow:
    """Couplings of the positions and of clouds of auxiliary vectors; figures are bounds or of the joint density."""
    return g_augmented_particle_flow(problem.action, copies=copies, layers=layers, width=width, depth=depth)


def internal_coordinates(problem: Problem, *, layers: int, width: int, bins: int) -> EquivariantFlow:
    """A spline flow in the frame of the first particles, summed over all permutations and reflections."""
    target = problem.target
    base = symmetrized_internal_coordinates(target.n, target.d, layers=layers, width=width, bins=bins)
    base.base.initialize(problem.training[:1000])
    return EquivariantFlow(base, [scale(base.action)])


def placement(problem: Problem, *, width: int = 24, informed: bool = False) -> EquivariantFlow:
    """Particles that are placed one after another around one of them, summed over all that may be the center.

    ``informed`` starts the function of the distances at that of the energy.
    """
    target: Any = problem.target
    shortest, longest = DISTANCES[target.name]
    flow = g_placement_flow(problem.action, shortest=shortest, longest=longest, width=width)
    if informed:
        flow.base.start_at(target.pair_energy)
    return flow


def scale(action: ParticleAction) -> InCoordinates:
    """One learnable scale of all coordinates, which the data set at the start."""
    return InCoordinates(GActNorm(action.coordinates), action)
