"""Equivariant bijections, as Pyro TransformModules."""

from pyro_gflows.transforms.actnorm import GActNorm
from pyro_gflows.transforms.base import EquivariantTransform, Invert
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.one_way import OneWayTransform
from pyro_gflows.transforms.radial import GRadial, g_radial
from pyro_gflows.transforms.residual import GResidual, g_residual

__all__ = [
    "Compose",
    "EquivariantTransform",
    "GActNorm",
    "GRadial",
    "GResidual",
    "Invert",
    "OneWayTransform",
    "g_radial",
    "g_residual",
]
