"""Spaces: where events live, and the measure with respect to which their densities are taken."""

from pyro_gflows.spaces.base import Space, require_space
from pyro_gflows.spaces.euclidean import Euclidean

__all__ = ["Euclidean", "Space", "require_space"]
