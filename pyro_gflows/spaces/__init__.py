"""Spaces: where events live, and the measure with respect to which their densities are taken."""

from pyro_gflows.spaces.base import Space, require_inside, require_space
from pyro_gflows.spaces.euclidean import Euclidean
from pyro_gflows.spaces.mean_free import MeanFree
from pyro_gflows.spaces.torus import Torus

__all__ = ["Euclidean", "MeanFree", "Space", "Torus", "require_inside", "require_space"]
