"""default_split: the split that a layer takes if the user names none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.rows import RowsAction
from pyro_gflows.actions.splits.base import Split, require_split
from pyro_gflows.actions.splits.by_angle import TorusSplit
from pyro_gflows.actions.splits.by_feature import feature_sets, feature_split
from pyro_gflows.actions.splits.by_index import ChannelSplit, CoordinateSplit
from pyro_gflows.actions.splits.by_irrep import IrrepSplit
from pyro_gflows.actions.splits.by_mask import checkerboard_split
from pyro_gflows.actions.torus import TorusAction

__all__ = ["default_split", "split_of"]


def default_split(action: Action) -> Split:
    """The first kind of split that the action allows.

    Vectors are split by coordinates, or else by irreducible blocks; rows that are permuted by their features. Images
    are split by channels, or else by a checkerboard of pixels, or else by irreducible blocks. Vectors of angles are
    split by angles.

    Args:
        action: How the group acts on events.

    Raises:
        ValueError: No split is possible, as for a single irreducible vector. The error gives the reason for each kind.

    Example:
        >>> type(default_split(ImageAction("D4", size=8))).__name__
        'MaskSplit'
    """
    if isinstance(action, TorusAction):
        return TorusSplit(action)  # there is one kind, whose error says it all
    if isinstance(action, RowsAction):
        # a single feature can still be split by blocks of rows
        by_blocks = len(feature_sets(action)) == 1 and len(action.fields[0].invariant_sets()) > 1
        return CoordinateSplit(action) if by_blocks else feature_split(action)
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


def split_of(action: Action, chosen: Split | None) -> Split:
    """The split that the user chose, or the default one.

    Args:
        action: The action of the layer.
        chosen: A split of that action, or None.

    Raises:
        TypeError: The choice is not a split.
        ValueError: The choice is a split of another action, or it is None and no split is possible.

    Example:
        >>> type(split_of(ImageAction("D4", size=8), None)).__name__
        'MaskSplit'
    """
    split = default_split(action) if chosen is None else require_split(chosen)
    if split.action != action:
        raise ValueError(f"expected a split of {action}, got one of {split.action}")
    return split
