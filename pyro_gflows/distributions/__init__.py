"""Invariant base distributions of flows, as Pyro distributions."""

from pyro_gflows.distributions.ball import InvariantUniformBall
from pyro_gflows.distributions.normal import InvariantNormal
from pyro_gflows.distributions.orbit_mixture import OrbitMixture
from pyro_gflows.distributions.placement import SequentialPlacement
from pyro_gflows.distributions.spherical import SphericalBase
from pyro_gflows.distributions.student import InvariantStudentT
from pyro_gflows.distributions.symmetrized import Symmetrized
from pyro_gflows.distributions.torus_uniform import InvariantUniform
from pyro_gflows.distributions.von_mises import InvariantVonMises

__all__ = [
    "InvariantNormal",
    "InvariantStudentT",
    "InvariantUniform",
    "InvariantUniformBall",
    "InvariantVonMises",
    "OrbitMixture",
    "SequentialPlacement",
    "SphericalBase",
    "Symmetrized",
]
