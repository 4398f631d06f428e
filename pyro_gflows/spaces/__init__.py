"""Where events live, and with respect to what their densities are."""

from pyro_gflows.spaces.base import Space, require_space
from pyro_gflows.spaces.euclidean import Euclidean

__all__ = ["Euclidean", "Space", "require_space"]
