"""How a group element moves one event."""

from pyro_gflows.actions.base import GroupAction
from pyro_gflows.actions.continuous import O2, O3, SO2, SO3, ContinuousGroup
from pyro_gflows.actions.decomposition import Isotype
from pyro_gflows.actions.grid import TranslationGroup
from pyro_gflows.actions.groups import CyclicGroup, DihedralGroup, FiniteGroup, Group, parse_group
from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.representations import (
    DefiningRepresentation,
    MatrixRepresentation,
    QuotientRepresentation,
    RegularRepresentation,
    Representation,
    TrivialRepresentation,
)
from pyro_gflows.actions.vector import VectorAction

__all__ = [
    "O2",
    "O3",
    "SO2",
    "SO3",
    "ContinuousGroup",
    "CyclicGroup",
    "DefiningRepresentation",
    "DihedralGroup",
    "FiniteGroup",
    "Group",
    "GroupAction",
    "ImageAction",
    "Isotype",
    "MatrixRepresentation",
    "QuotientRepresentation",
    "RegularRepresentation",
    "Representation",
    "TranslationGroup",
    "TrivialRepresentation",
    "VectorAction",
    "parse_group",
]
