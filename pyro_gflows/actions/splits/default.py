"""The split that a layer takes when none is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_gflows.actions.base import LinearAction
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.splits.base import Split, require_split
from pyro_gflows.actions.splits.by_index import ChannelSplit, CoordinateSplit
from pyro_gflows.actions.splits.by_irrep import IrrepSplit
from pyro_gflows.actions.splits.by_mask import checkerboard_split

__all__ = ["default_split", "split_of"]


def default_split(action: LinearAction) -> Split:
    """The first split that the action allows: vectors by coordinates, then by irreps; images by channels, then by the
    mirrored checkerboard, then by irreps.

    Raises:
        ValueError: none is possible (one irreducible vector); says why for each kind.

    Example:
        >>> type(default_split(ImageAction("D4", size=8))).__name__
        'MaskSplit'
    """
    kinds: list[Callable[[Any], Split]] = (
        [ChannelSplit, checkerboard_split, IrrepSplit]
        if isinstance(action, ImageAction)
        else [CoordinateSplit, IrrepSplit]
    )
    reasons = []
    for kind in kinds:
        try:
            return kind(action)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(f"{action} cannot be split: " + "; ".join(reasons))


def split_of(action: LinearAction, given: Split | None) -> Split:
    """The split that was given, or the default one.

    Raises:
        TypeError: something else than a split was given.
        ValueError: it is a split of another action, or none was given and none is possible.
    """
    split = default_split(action) if given is None else require_split(given)
    if split.action != action:
        raise ValueError(f"expected a split of {action}, got one of {split.action}")
    return split
