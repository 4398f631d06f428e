"""Normalizing flows for Pyro whose densities are exactly invariant under a symmetry group.

Many data and posteriors have a symmetry: rotations of an image, for example, or permutations of the components of a
mixture. A flow of this package need not learn the symmetry, since it has it exactly at any weights. It is built from
three parts: an *action*, which states how the group acts on an event, an invariant *base* distribution, and equivariant
*transforms*. A bijection that commutes with the group maps an invariant base to an invariant density.

Source:
    Bose, Brubaker and Kobyzev, Equivariant Finite Normalizing Flows, arXiv 2110.08649.

Example:
    >>> import torch
    >>> action = VectorAction.plane("D4")  # rotations by multiples of 90 degrees and reflections of the plane
    >>> flow = EquivariantFlow(InvariantNormal(action), [g_residual(action), g_residual(action)]).double()
    >>> x = torch.randn(5, 2, dtype=torch.float64)
    >>> scores = torch.stack([flow.dist.log_prob(action.act(element, x)) for element in action.elements()])
    >>> torch.allclose(scores, flow.dist.log_prob(x))
    True
"""

from pyro_gflows.actions import (
    Action,
    ChannelSplit,
    CoordinateSplit,
    ImageAction,
    IrrepSplit,
    LinearAction,
    MaskSplit,
    OffGridAction,
    RowsAction,
    SitesAction,
    Split,
    TorusAction,
    TorusSplit,
    VectorAction,
    checkerboard_split,
    isotypic_split,
    plain_checkerboard_split,
)
from pyro_gflows.deprecation import moved_names
from pyro_gflows.distributions import (
    InvariantNormal,
    InvariantStudentT,
    InvariantUniform,
    InvariantUniformBall,
    InvariantVonMises,
    OrbitMixture,
    Symmetrized,
)
from pyro_gflows.flows import (
    AugmentedFlow,
    EquivariantFlow,
    FlowDistribution,
    OrbitFlow,
    augment,
    g_coupling_image_flow,
    g_residual_image_flow,
    g_soft_coupling_image_flow,
)
from pyro_gflows.groups import (
    O2,
    O3,
    SO2,
    SO3,
    CyclicGroup,
    DihedralGroup,
    FiniteGroup,
    ProductGroup,
    SignedPermutationGroup,
    SignGroup,
    SymmetricGroup,
    TranslationGroup,
    WallpaperGroup,
)
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.serialization import load, registered, save
from pyro_gflows.training import FitSettings, fit, fit_energy
from pyro_gflows.transforms import (
    CircularSpline,
    Compose,
    ConditionalTransform,
    ElementwiseAffine,
    ElementwiseCircularSpline,
    ElementwiseSpline,
    EquivariantTransform,
    GActNorm,
    GAffine,
    GAutoregressive,
    GConvExponential,
    GCoupling,
    GGradient,
    GInverseAutoregressive,
    GLinear,
    GLinearPLU,
    GMonotone,
    GNormalCdf,
    GOrbitNorm,
    GRadial,
    GResidual,
    GSigmoid,
    GSpectralConv,
    GSplit,
    GSqueeze,
    Invert,
    IrrepScale,
    MatrixScale,
    Recompute,
    g_autoregressive,
    g_coupling,
    g_radial,
    g_residual,
    moser,
    residual_realization,
)
from pyro_gflows.version import __version__

__all__ = [
    "O2",
    "O3",
    "SO2",
    "SO3",
    "Action",
    "AugmentedFlow",
    "AutoGFlow",
    "ChannelSplit",
    "CircularSpline",
    "Compose",
    "ConditionalTransform",
    "CoordinateSplit",
    "CyclicGroup",
    "DihedralGroup",
    "ElementwiseAffine",
    "ElementwiseCircularSpline",
    "ElementwiseSpline",
    "EquivariantFlow",
    "EquivariantTransform",
    "FiniteGroup",
    "FitSettings",
    "FlowDistribution",
    "GActNorm",
    "GAffine",
    "GAutoregressive",
    "GConvExponential",
    "GCoupling",
    "GGradient",
    "GInverseAutoregressive",
    "GLinear",
    "GLinearPLU",
    "GMonotone",
    "GNormalCdf",
    "GOrbitNorm",
    "GRadial",
    "GResidual",
    "GSigmoid",
    "GSpectralConv",
    "GSplit",
    "GSqueeze",
    "ImageAction",
    "InvariantNormal",
    "InvariantStudentT",
    "InvariantUniform",
    "InvariantUniformBall",
    "InvariantVonMises",
    "Invert",
    "IrrepScale",
    "IrrepSplit",
    "LinearAction",
    "MaskSplit",
    "MatrixScale",
    "OffGridAction",
    "OrbitFlow",
    "OrbitMixture",
    "ProductGroup",
    "Recompute",
    "RowsAction",
    "SignGroup",
    "SignedPermutationGroup",
    "SitesAction",
    "Split",
    "SymmetricGroup",
    "Symmetrized",
    "TorusAction",
    "TorusSplit",
    "TranslationGroup",
    "VectorAction",
    "WallpaperGroup",
    "__version__",
    "augment",
    "checkerboard_split",
    "fit",
    "fit_energy",
    "g_autoregressive",
    "g_coupling",
    "g_coupling_image_flow",
    "g_radial",
    "g_residual",
    "g_residual_image_flow",
    "g_soft_coupling_image_flow",
    "isotypic_split",
    "load",
    "moser",
    "plain_checkerboard_split",
    "registered",
    "residual_realization",
    "save",
]

__getattr__ = moved_names(
    __name__,
    {
        "GroupAction": "pyro_gflows.actions:LinearAction",
        "MatrixExponential": "pyro_gflows.transforms:MatrixScale",
    },
)
