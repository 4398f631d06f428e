"""Normalizing flows for Pyro whose densities are exactly invariant under a symmetry group."""

from pyro_gflows.actions import GroupAction, ImageAction, VectorAction
from pyro_gflows.distributions import InvariantNormal, Symmetrized
from pyro_gflows.flow import EquivariantFlow
from pyro_gflows.registry import registered
from pyro_gflows.transforms import (
    Compose,
    EquivariantTransform,
    GActNorm,
    GRadial,
    GResidual,
    Invert,
    g_radial,
    g_residual,
)

__all__ = [
    "Compose",
    "EquivariantFlow",
    "EquivariantTransform",
    "GActNorm",
    "GRadial",
    "GResidual",
    "GroupAction",
    "ImageAction",
    "InvariantNormal",
    "Invert",
    "Symmetrized",
    "VectorAction",
    "g_radial",
    "g_residual",
    "registered",
]
