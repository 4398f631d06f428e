"""Exact densities with a known symmetry, to which flows are fitted and compared.

Named densities:
    density, DENSITIES

On the plane:
    EightGaussians, Rings, Checkerboard

On the torus of two angles:
    TorusUnimodal, TorusMultimodal, TorusCorrelated, TorusSquare

Types:
    Density, TorusDensity, LogDensity, on_full_plates
"""

from pyro_gflows.targets.exact_density import Density
from pyro_gflows.targets.log_density import LogDensity, on_full_plates
from pyro_gflows.targets.named import DENSITIES, density
from pyro_gflows.targets.planar import Checkerboard, EightGaussians, Rings
from pyro_gflows.targets.torus import TorusCorrelated, TorusDensity, TorusMultimodal, TorusSquare, TorusUnimodal

__all__ = [
    "DENSITIES",
    "Checkerboard",
    "Density",
    "EightGaussians",
    "LogDensity",
    "Rings",
    "TorusCorrelated",
    "TorusDensity",
    "TorusMultimodal",
    "TorusSquare",
    "TorusUnimodal",
    "density",
    "on_full_plates",
]
