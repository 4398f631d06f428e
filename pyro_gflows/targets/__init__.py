"""Exact densities with a known symmetry, to which flows are fitted and compared.

Named densities:
    density, DENSITIES

On the plane:
    EightGaussians, Rings, Checkerboard

Particles:
    DoubleWell, LennardJones, ParticleTarget, PairTarget, SequentialMonteCarlo, ParticleDraws, SamplingReport, Estimate

On the torus of two angles:
    TorusUnimodal, TorusMultimodal, TorusCorrelated, TorusSquare

Types:
    Density, TorusDensity, LogDensity, on_full_plates
"""

from pyro_gflows.targets.clusters import DoubleWell, LennardJones
from pyro_gflows.targets.exact_density import Density
from pyro_gflows.targets.log_density import LogDensity, on_full_plates
from pyro_gflows.targets.named import DENSITIES, density
from pyro_gflows.targets.particle_draws import Estimate, ParticleDraws, SamplingReport
from pyro_gflows.targets.particles import PairTarget, ParticleTarget
from pyro_gflows.targets.planar import Checkerboard, EightGaussians, Rings
from pyro_gflows.targets.sequential_monte_carlo import SequentialMonteCarlo
from pyro_gflows.targets.torus import TorusCorrelated, TorusDensity, TorusMultimodal, TorusSquare, TorusUnimodal

__all__ = [
    "DENSITIES",
    "Checkerboard",
    "Density",
    "DoubleWell",
    "EightGaussians",
    "Estimate",
    "LennardJones",
    "LogDensity",
    "PairTarget",
    "ParticleDraws",
    "ParticleTarget",
    "Rings",
    "SamplingReport",
    "SequentialMonteCarlo",
    "TorusCorrelated",
    "TorusDensity",
    "TorusMultimodal",
    "TorusSquare",
    "TorusUnimodal",
    "density",
    "on_full_plates",
]
