"""The split that a layer takes when none is given."""

from __future__ import annotations

from pyro_gflows.actions.base import GroupAction
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.index_splits import ChannelSplit, CoordinateSplit
from pyro_gflows.actions.irrep_split import IrrepSplit
from pyro_gflows.actions.mask_split import checkerboard_split
from pyro_gflows.actions.splits import Split

__all__ = ["default_split"]


def default_split(action: GroupAction) -> Split:
    """The first split that the action allows: vectors by coordinates, then by irreps; images by channels, then by the
    mirrored checkerboard, then by irreps.

    Raises:
        ValueError: none is possible (one irreducible vector); says why for each kind.

    Example:
        >>> type(default_split(ImageAction("D4", size=8))).__name__
        'MaskSplit'
    """
    kinds = (
        [ChannelSplit, checkerboard_split, IrrepSplit]
        if isinstance(action, ImageAction)
        else [CoordinateSplit, IrrepSplit]
    )
    reasons = []
    for kind in kinds:
        try:
            return kind(action)  # type: ignore[operator]
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError(f"{action} cannot be split: " + "; ".join(reasons))
