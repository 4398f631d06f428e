"""Densities by name."""

from __future__ import annotations

import difflib

from pyro_gflows.targets.clusters import CLUSTERS
from pyro_gflows.targets.exact_density import Density
from pyro_gflows.targets.planar import PLANAR
from pyro_gflows.targets.torus import ON_TORUS

__all__ = ["DENSITIES", "density"]

#: The exact densities on the plane, on the torus and of particles, by name.
DENSITIES: dict[str, Density] = {d.name: d for d in (*PLANAR, *ON_TORUS, *CLUSTERS)}


def density(name: str) -> Density:
    """Return the density with a name.

    Args:
        name: One of the names in :data:`DENSITIES`.

    Raises:
        ValueError: If the name is not known; the message lists the names and the most similar one.

    Example:
        >>> density("rings").symmetry
        'O(2)'
    """
    if name in DENSITIES:
        return DENSITIES[name]
    near = difflib.get_close_matches(name, DENSITIES, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"unknown density {name!r}: expected one of {sorted(DENSITIES)}{hint}")
