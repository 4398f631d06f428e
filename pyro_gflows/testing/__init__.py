"""Checks of symmetry, invertibility and log-determinants, for layers of this package and for the user's own.

Use :func:`assert_layer` to check a layer that you wrote. Every check compares tensors entry by entry, and log-densities
rather than densities; :func:`assert_above_floor` compares a reported NLL with the entropy of the data. A failure is an
AssertionError that names the group element and the sample with the largest error. Inputs are cloned before every call,
so that a transform with a cache computes its values again. Put a layer with a random log-det in ``eval()`` mode before
a check.
"""

from pyro_gflows.deprecation import moved_names
from pyro_gflows.testing.bijection import assert_bijective, assert_log_det, dense_log_det
from pyro_gflows.testing.conditional import assert_conditionally_equivariant, assert_conditionally_invariant
from pyro_gflows.testing.floor import assert_above_floor
from pyro_gflows.testing.layer import assert_layer
from pyro_gflows.testing.report import EquivarianceReport
from pyro_gflows.testing.symmetry import assert_equivariant, assert_invariant, equivariance_error
from pyro_gflows.testing.weights import randomize_

__all__ = [
    "EquivarianceReport",
    "assert_above_floor",
    "assert_bijective",
    "assert_conditionally_equivariant",
    "assert_conditionally_invariant",
    "assert_equivariant",
    "assert_invariant",
    "assert_layer",
    "assert_log_det",
    "dense_log_det",
    "equivariance_error",
    "randomize_",
]

__getattr__ = moved_names(
    __name__,
    {
        "assert_equivariant_given": "pyro_gflows.testing:assert_conditionally_equivariant",
        "assert_invariant_given": "pyro_gflows.testing:assert_conditionally_invariant",
    },
)
