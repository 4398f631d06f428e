"""Exact densities with a known symmetry, to which flows are fitted and compared.

Named densities:
    density, DENSITIES

On the plane:
    EightGaussians, Rings, Checkerboard

On the torus of two angles:
    TorusUnimodal, TorusMultimodal, TorusCorrelated, TorusSquare

Of particles:
    DoubleWell, LennardJones, ParticleEnergy, ParticleTarget, PairTarget

Draws of particles:
    SequentialMonteCarlo, ParticleDraws, SamplingReport, Estimate, Pool

Types:
    Density, TorusDensity, LogDensity, SoftenedDensity, soften, on_full_plates, log_density_of, known_log_z
"""

from pyro_gflows.targets.clusters import DoubleWell, LennardJones
from pyro_gflows.targets.exact_density import Density
from pyro_gflows.targets.log_density import LogDensity, known_log_z, log_density_of, on_full_plates
from pyro_gflows.targets.named import DENSITIES, density
from pyro_gflows.targets.pairs import PairTarget
from pyro_gflows.targets.particle_draws import Estimate, ParticleDraws, SamplingReport
from pyro_gflows.targets.particles import ParticleEnergy, ParticleTarget, Pool
from pyro_gflows.targets.planar import Checkerboard, EightGaussians, Rings
from pyro_gflows.targets.sequential_monte_carlo import SequentialMonteCarlo
from pyro_gflows.targets.softened import SoftenedDensity, soften
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
    "ParticleEnergy",
    "ParticleTarget",
    "Pool",
    "Rings",
    "SamplingReport",
    "SequentialMonteCarlo",
    "SoftenedDensity",
    "TorusCorrelated",
    "TorusDensity",
    "TorusMultimodal",
    "TorusSquare",
    "TorusUnimodal",
    "density",
    "known_log_z",
    "log_density_of",
    "on_full_plates",
    "soften",
]
