"""Groups and their representations, apart from the events that they act on.

Groups:
    CyclicGroup, DihedralGroup, SymmetricGroup, SignGroup, SignedPermutationGroup, TranslationGroup, WallpaperGroup,
    ProductGroup, FiniteGroup,
    SO2, O2, SO3, O3, TorusTranslations, IsometryTable,
    TorusIsometry, parse_group

Kinds of groups:
    Group, EnumerableGroup, ContinuousGroup, MonomialGroup

Representations:
    Representation, TrivialRepresentation, DefiningRepresentation, RegularRepresentation,
    QuotientRepresentation, RowsRepresentation, SignRepresentation, LiftedRepresentation, MatrixRepresentation,
    SubRepresentation, escnn_group

Rows that are permuted:
    RowStructure, StructuredField, RowField, MatrixField, InnerField

Isotypic decomposition:
    Decomposition, Isotype, Summands, IrrepImages
"""

from pyro_gflows.groups.averages import IrrepImages
from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.continuous import O2, O3, SO2, SO3, ContinuousGroup
from pyro_gflows.groups.escnn_adapter import escnn_group
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, FiniteGroup
from pyro_gflows.groups.isometry_table import IsometryTable
from pyro_gflows.groups.isotypes import Isotype, Summands
from pyro_gflows.groups.lifted import LiftedRepresentation
from pyro_gflows.groups.matrix_field import MatrixField
from pyro_gflows.groups.monomial import MonomialGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.permutation_representations import (
    QuotientRepresentation,
    RegularRepresentation,
    RowsRepresentation,
)
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.representations import (
    DefiningRepresentation,
    MatrixRepresentation,
    Representation,
    TrivialRepresentation,
)
from pyro_gflows.groups.restriction import SubRepresentation
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.groups.row_structure import RowStructure
from pyro_gflows.groups.sign_representation import SignRepresentation
from pyro_gflows.groups.signed_permutations import SignedPermutationGroup
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.groups.structured_field import InnerField, StructuredField
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.groups.torus_isometries import TorusIsometry
from pyro_gflows.groups.torus_translations import TorusTranslations
from pyro_gflows.groups.wallpaper import TranslationGroup, WallpaperGroup

__all__ = [
    "O2",
    "O3",
    "SO2",
    "SO3",
    "ContinuousGroup",
    "CyclicGroup",
    "Decomposition",
    "DefiningRepresentation",
    "DihedralGroup",
    "EnumerableGroup",
    "FiniteGroup",
    "Group",
    "InnerField",
    "IrrepImages",
    "IsometryTable",
    "Isotype",
    "LiftedRepresentation",
    "MatrixField",
    "MatrixRepresentation",
    "MonomialGroup",
    "ProductGroup",
    "QuotientRepresentation",
    "RegularRepresentation",
    "Representation",
    "RowField",
    "RowStructure",
    "RowsRepresentation",
    "SignGroup",
    "SignRepresentation",
    "SignedPermutationGroup",
    "StructuredField",
    "SubRepresentation",
    "Summands",
    "SymmetricGroup",
    "TorusIsometry",
    "TorusTranslations",
    "TranslationGroup",
    "TrivialRepresentation",
    "WallpaperGroup",
    "escnn_group",
    "parse_group",
]
