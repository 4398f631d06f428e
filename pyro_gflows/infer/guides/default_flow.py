"""The transforms that a guide takes when none are given."""

from __future__ import annotations

from pyro_gflows.actions import CoordinateSplit, IrrepSplit, Split, VectorAction
from pyro_gflows.transforms import EquivariantTransform, GActNorm, g_coupling, g_residual

__all__ = ["guide_transforms"]


def guide_transforms(action: VectorAction, *, steps: int = 4, width: int = 16) -> list[EquivariantTransform]:
    """Coupling layers where they can tear a mode into its images, residual layers where they cannot.

    A coupling step moves one part of the vector as the others say. It splits by coordinates and by irreps in turn. What
    is alone of its kind (an irrep that occurs once, such as the differences of one permuted triple) it can only scale
    as a whole, since nothing else moves likewise: there a residual layer joins every step. All layers are cheap to
    sample; a scale for each field, and a shift of what is invariant, come last.

    Args:
        action: how the group moves the unconstrained vector.
        steps: how many steps.
        width: hidden fields of the coupling layers' networks.

    Example:
        >>> rows = VectorAction.rows("S3")
        >>> [type(layer).__name__ for layer in guide_transforms(rows, steps=1)]
        ['Compose', 'GResidual', 'GActNorm']
        >>> [type(layer).__name__ for layer in guide_transforms(rows.copies(2), steps=1)]
        ['Compose', 'GActNorm']
    """
    splits = _splits(action)
    alone = any(isotype.multiplicity == 1 and not isotype.is_trivial for isotype in action.decomposition)
    layers: list[EquivariantTransform] = []
    for step in range(steps):
        if splits:
            layers.append(g_coupling(action, split=splits[step % len(splits)], width=width))
        if alone or not splits:
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
