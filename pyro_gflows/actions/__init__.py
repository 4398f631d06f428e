"""How a group element acts on one event."""

import warnings
from typing import Any

from pyro_gflows.actions.base import Action, LinearAction
from pyro_gflows.actions.components import Decomposition
from pyro_gflows.actions.continuous import O2, O3, SO2, SO3, ContinuousGroup
from pyro_gflows.actions.default_split import default_split
from pyro_gflows.actions.escnn_door import escnn_group
from pyro_gflows.actions.grid import TranslationGroup, WallpaperGroup
from pyro_gflows.actions.group_base import EnumerableGroup, Group
from pyro_gflows.actions.groups import CyclicGroup, DihedralGroup, FiniteGroup
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.index_splits import ChannelSplit, CoordinateSplit
from pyro_gflows.actions.irrep_split import IrrepSplit, isotypic_split
from pyro_gflows.actions.isotype import Isotype
from pyro_gflows.actions.mask_split import MaskSplit, checkerboard_split, plain_checkerboard_split
from pyro_gflows.actions.names import parse_group
from pyro_gflows.actions.off_grid import OffGridAction
from pyro_gflows.actions.products import ProductGroup
from pyro_gflows.actions.representations import (
    DefiningRepresentation,
    MatrixRepresentation,
    QuotientRepresentation,
    RegularRepresentation,
    Representation,
    RowsRepresentation,
    TrivialRepresentation,
)
from pyro_gflows.actions.restriction import SubRepresentation
from pyro_gflows.actions.sites import SitesAction
from pyro_gflows.actions.splits import Split
from pyro_gflows.actions.symmetric import SymmetricGroup
from pyro_gflows.actions.vector import VectorAction

__all__ = [
    "O2",
    "O3",
    "SO2",
    "SO3",
    "Action",
    "ChannelSplit",
    "ContinuousGroup",
    "CoordinateSplit",
    "CyclicGroup",
    "Decomposition",
    "DefiningRepresentation",
    "DihedralGroup",
    "EnumerableGroup",
    "FiniteGroup",
    "Group",
    "ImageAction",
    "IrrepSplit",
    "Isotype",
    "LinearAction",
    "MaskSplit",
    "MatrixRepresentation",
    "OffGridAction",
    "ProductGroup",
    "QuotientRepresentation",
    "RegularRepresentation",
    "Representation",
    "RowsRepresentation",
    "SitesAction",
    "Split",
    "SubRepresentation",
    "SymmetricGroup",
    "TranslationGroup",
    "TrivialRepresentation",
    "VectorAction",
    "WallpaperGroup",
    "checkerboard_split",
    "default_split",
    "escnn_group",
    "isotypic_split",
    "parse_group",
    "plain_checkerboard_split",
]


def __getattr__(name: str) -> Any:
    if name == "GroupAction":
        warnings.warn("GroupAction is now LinearAction (or Action, which is wider)", DeprecationWarning, stacklevel=2)
        return LinearAction
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
