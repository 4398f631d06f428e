"""Exact densities with a known symmetry, to which flows are fitted and compared."""

from pyro_gflows.targets.log_density import LogDensity, on_full_plates
from pyro_gflows.targets.planar import DENSITIES, Checkerboard, Density, EightGaussians, Rings, density

__all__ = [
    "DENSITIES",
    "Checkerboard",
    "Density",
    "EightGaussians",
    "LogDensity",
    "Rings",
    "density",
    "on_full_plates",
]
