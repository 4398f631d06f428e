"""Invariant base distributions of flows, as Pyro distributions."""

from pyro_gflows.distributions.ball import InvariantUniformBall
from pyro_gflows.distributions.normal import InvariantNormal
from pyro_gflows.distributions.orbit_mixture import OrbitMixture
from pyro_gflows.distributions.spherical import SphericalBase
from pyro_gflows.distributions.student import InvariantStudentT
from pyro_gflows.distributions.symmetrized import Symmetrized

__all__ = [
    "InvariantNormal",
    "InvariantStudentT",
    "InvariantUniformBall",
    "OrbitMixture",
    "SphericalBase",
    "Symmetrized",
]
