"""Equivariant bijections, as Pyro TransformModules.

Residual and radial layers:
    GResidual, GMonotone, GRadial, g_residual, g_radial

Coupling and autoregressive layers:
    GCoupling, GAutoregressive, GInverseAutoregressive, GSplit, GAffine, g_coupling, g_autoregressive

Maps of one part, for coupling layers:
    ElementwiseAffine, ElementwiseSpline, ElementwiseCircularSpline, IrrepScale, RowScale, RowStretch, MatrixScale,
    FieldwiseTransformer, by_field, Transformer, TransformerFactory

Splines of angles:
    CircularSpline

Linear and normalizing layers:
    GLinear, GLinearPLU, GConvExponential, GSpectralConv, GActNorm, GOrbitNorm, GSqueeze

Layers on tori:
    GGradient, GMoser, MoserReport, moser

Layers on configurations of particles:
    GPairPotential, GLeapfrog, InCoordinates, GExchange, GRelative, g_augmented_coupling, g_graph_residual

Layers between intervals and the line:
    GSigmoid, GNormalCdf, Squash

Combining layers:
    Compose, Invert, Conditioned, Masked, Recompute

Residual flows that realize a given map:
    ResidualRealization, residual_realization

Base classes:
    EquivariantTransform, ConditionalTransform, DataDependentTransform, OneWayTransform, Fast, TakesMask
"""

from pyro_gflows.deprecation import moved_names
from pyro_gflows.transforms import old_files  # noqa: F401 (its migration)
from pyro_gflows.transforms.actnorm import GActNorm
from pyro_gflows.transforms.affine import GAffine
from pyro_gflows.transforms.augmented import GExchange, GRelative, g_augmented_coupling
from pyro_gflows.transforms.autoregressive import GAutoregressive, GInverseAutoregressive, g_autoregressive
from pyro_gflows.transforms.base import Conditioned, EquivariantTransform, Invert
from pyro_gflows.transforms.circular import CircularSpline
from pyro_gflows.transforms.circular_transformer import ElementwiseCircularSpline
from pyro_gflows.transforms.compose import Compose
from pyro_gflows.transforms.conditional import ConditionalTransform
from pyro_gflows.transforms.conv_exponential import GConvExponential
from pyro_gflows.transforms.coupling import GCoupling, g_coupling
from pyro_gflows.transforms.data_dependent import DataDependentTransform
from pyro_gflows.transforms.fieldwise import FieldwiseTransformer, by_field
from pyro_gflows.transforms.gradient import GGradient
from pyro_gflows.transforms.graph_residual import g_graph_residual
from pyro_gflows.transforms.in_coordinates import InCoordinates
from pyro_gflows.transforms.leapfrog import GLeapfrog
from pyro_gflows.transforms.linear import GLinear
from pyro_gflows.transforms.linear_plu import GLinearPLU
from pyro_gflows.transforms.masked import Masked, TakesMask
from pyro_gflows.transforms.matrix_scale import MatrixScale
from pyro_gflows.transforms.monotone import GMonotone
from pyro_gflows.transforms.moser_flow import GMoser, moser
from pyro_gflows.transforms.moser_report import MoserReport
from pyro_gflows.transforms.one_way import Fast, OneWayTransform
from pyro_gflows.transforms.orbit_norm import GOrbitNorm
from pyro_gflows.transforms.pair_potential import GPairPotential
from pyro_gflows.transforms.radial import GRadial, g_radial
from pyro_gflows.transforms.realization import ResidualRealization, residual_realization
from pyro_gflows.transforms.recompute import Recompute
from pyro_gflows.transforms.residual import GResidual, g_residual
from pyro_gflows.transforms.row_scale import RowScale
from pyro_gflows.transforms.row_stretch import RowStretch
from pyro_gflows.transforms.spectral_conv import GSpectralConv
from pyro_gflows.transforms.spline import ElementwiseSpline
from pyro_gflows.transforms.split import GSplit
from pyro_gflows.transforms.squash import GNormalCdf, GSigmoid, Squash
from pyro_gflows.transforms.squeeze import GSqueeze
from pyro_gflows.transforms.transformers import (
    ElementwiseAffine,
    IrrepScale,
    Transformer,
    TransformerFactory,
)

__all__ = [
    "CircularSpline",
    "Compose",
    "ConditionalTransform",
    "Conditioned",
    "DataDependentTransform",
    "ElementwiseAffine",
    "ElementwiseCircularSpline",
    "ElementwiseSpline",
    "EquivariantTransform",
    "Fast",
    "FieldwiseTransformer",
    "GActNorm",
    "GAffine",
    "GAutoregressive",
    "GConvExponential",
    "GCoupling",
    "GExchange",
    "GGradient",
    "GInverseAutoregressive",
    "GLeapfrog",
    "GLinear",
    "GLinearPLU",
    "GMonotone",
    "GMoser",
    "GNormalCdf",
    "GOrbitNorm",
    "GPairPotential",
    "GRadial",
    "GRelative",
    "GResidual",
    "GSigmoid",
    "GSpectralConv",
    "GSplit",
    "GSqueeze",
    "InCoordinates",
    "Invert",
    "IrrepScale",
    "Masked",
    "MatrixScale",
    "MoserReport",
    "OneWayTransform",
    "Recompute",
    "ResidualRealization",
    "RowScale",
    "RowStretch",
    "Squash",
    "TakesMask",
    "Transformer",
    "TransformerFactory",
    "by_field",
    "g_augmented_coupling",
    "g_autoregressive",
    "g_coupling",
    "g_graph_residual",
    "g_radial",
    "g_residual",
    "moser",
    "residual_realization",
]

__getattr__ = moved_names(
    __name__,
    {
        "MatrixExponential": "pyro_gflows.transforms:MatrixScale",
    },
)
