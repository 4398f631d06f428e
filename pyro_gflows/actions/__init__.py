"""Actions, which say how a group acts on one event, and splits of an event for coupling layers.

Actions:
    Action, LinearAction, VectorAction, RowsAction, ParticleAction, ImageAction, OffGridAction, SitesAction,
    TorusAction

Events as tables of features:
    RowTables, RowsLayout, pad_rows

Splits:
    Split, CoordinateSplit, IrrepSplit, ChannelSplit, MaskSplit, TorusSplit, AngleFrame,
    checkerboard_split, plain_checkerboard_split, isotypic_split, feature_split, default_split

Old files:
    eigenvector_blocks
"""

from pyro_gflows.actions.base import Action
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.actions.off_grid import OffGridAction
from pyro_gflows.actions.particles import ParticleAction
from pyro_gflows.actions.row_layout import RowsLayout, RowTables
from pyro_gflows.actions.row_mask import pad_rows
from pyro_gflows.actions.rows import RowsAction
from pyro_gflows.actions.sites import SitesAction
from pyro_gflows.actions.splits.angle_frames import AngleFrame
from pyro_gflows.actions.splits.base import Split
from pyro_gflows.actions.splits.by_angle import TorusSplit
from pyro_gflows.actions.splits.by_feature import feature_split
from pyro_gflows.actions.splits.by_index import ChannelSplit, CoordinateSplit
from pyro_gflows.actions.splits.by_irrep import IrrepSplit, isotypic_split
from pyro_gflows.actions.splits.by_mask import MaskSplit, checkerboard_split, plain_checkerboard_split
from pyro_gflows.actions.splits.default import default_split
from pyro_gflows.actions.splits.old_basis import eigenvector_blocks
from pyro_gflows.actions.torus import TorusAction
from pyro_gflows.actions.vector import VectorAction
from pyro_gflows.deprecation import moved_names

__all__ = [
    "Action",
    "AngleFrame",
    "ChannelSplit",
    "CoordinateSplit",
    "ImageAction",
    "IrrepSplit",
    "LinearAction",
    "MaskSplit",
    "OffGridAction",
    "ParticleAction",
    "RowTables",
    "RowsAction",
    "RowsLayout",
    "SitesAction",
    "Split",
    "TorusAction",
    "TorusSplit",
    "VectorAction",
    "checkerboard_split",
    "default_split",
    "eigenvector_blocks",
    "feature_split",
    "isotypic_split",
    "pad_rows",
    "plain_checkerboard_split",
]

__getattr__ = moved_names(
    __name__,
    {
        "ContinuousGroup": "pyro_gflows.groups",
        "CyclicGroup": "pyro_gflows.groups",
        "Decomposition": "pyro_gflows.groups",
        "DefiningRepresentation": "pyro_gflows.groups",
        "DihedralGroup": "pyro_gflows.groups",
        "EnumerableGroup": "pyro_gflows.groups",
        "FiniteGroup": "pyro_gflows.groups",
        "Group": "pyro_gflows.groups",
        "GroupAction": "pyro_gflows.actions:LinearAction",
        "Isotype": "pyro_gflows.groups",
        "MatrixRepresentation": "pyro_gflows.groups",
        "O2": "pyro_gflows.groups",
        "O3": "pyro_gflows.groups",
        "ProductGroup": "pyro_gflows.groups",
        "QuotientRepresentation": "pyro_gflows.groups",
        "RegularRepresentation": "pyro_gflows.groups",
        "Representation": "pyro_gflows.groups",
        "RowsRepresentation": "pyro_gflows.groups",
        "SO2": "pyro_gflows.groups",
        "SO3": "pyro_gflows.groups",
        "SubRepresentation": "pyro_gflows.groups",
        "SymmetricGroup": "pyro_gflows.groups",
        "TranslationGroup": "pyro_gflows.groups",
        "TrivialRepresentation": "pyro_gflows.groups",
        "WallpaperGroup": "pyro_gflows.groups",
        "escnn_group": "pyro_gflows.groups",
        "parse_group": "pyro_gflows.groups",
    },
)
