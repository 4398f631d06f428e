"""The most memory that this process has taken."""

from __future__ import annotations

import resource
import sys

__all__ = ["peak_megabytes"]


def peak_megabytes() -> int:
    """The largest resident memory of this process so far."""
    units = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, kilobytes elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // units
