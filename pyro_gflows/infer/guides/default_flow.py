"""The transforms that a guide takes when none are given."""

from __future__ import annotations

from pyro_gflows.actions import CoordinateSplit, IrrepSplit, Split, VectorAction
from pyro_gflows.transforms import EquivariantTransform, GActNorm, g_coupling, g_residual

__all__ = ["guide_transforms"]


def guide_transforms(action: VectorAction, *, steps: int = 4, width: int = 16) -> list[EquivariantTransform]:
    """Coupling steps where the vector splits, by its orbits and by its irreps in turn; else residual layers.

    All are cheap to sample, and a scale for each field and a shift of what is invariant come last.

    Args:
        action: how the group moves the unconstrained vector.
        steps: how many coupling steps or residual layers.
        width: hidden fields of the coupling steps' networks.

    Example:
        >>> len(guide_transforms(VectorAction.rows("S3")))
        5
    """
    splits = _splits(action)
    layers: list[EquivariantTransform] = []
    for step in range(steps):
        if splits:
            layers.append(g_coupling(action, split=splits[step % len(splits)], width=width))
        else:
            layers.append(g_residual(action, fast="sample"))
    return [*layers, GActNorm(action)]


def _splits(action: VectorAction) -> list[Split]:
    found: list[Split] = []
    for kind in (CoordinateSplit, IrrepSplit):
        try:
            found.append(kind(action))
        except ValueError:  # one orbit, or one irreducible vector
            continue
    return found
