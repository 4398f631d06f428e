"""Equivariant networks: linear maps, convolutions, activations, and residual branches with Lipschitz bounds.

Linear maps and convolutions:
    EquivariantLinear, RowsLinear, EquivariantConv, SteerableConv, KernelLayer, kernels_once, kernels_together

Networks:
    EquivariantMLP, EquivariantCNN, RowsNetwork, RowsAttention, GraphNetwork, RowsChain, RowFeatures, SoftNetwork,
    AutoregressiveNetwork, RowsAutoregressiveNetwork, EquivariantNetwork, HiddenFields, Over, Conditioner, conditioner,
    mean_over_rows

Residual branches (contractions):
    LipschitzSum, Ridges, RadialTerm, LipschitzNetwork, LipschitzDenseNetwork, ConditionalBranch, PooledBranch,
    LipschitzRowsNetwork, GraphContraction, Shear, CustomContraction, Contraction, Term, BranchGiven,
    PooledBranchGiven, Half, lipschitz_branch

Potentials of gradient maps:
    PairPotential, TorusPotential, Potential, poisson_wave

Angles:
    Harmonics, shortest_frequencies, PeriodicNetwork

Lipschitz layers:
    LipschitzLinear, LipschitzRowsLinear, LipschitzConv, AlmostOrthogonalConv, PolarConv

Activations:
    LipSwish, Swish, ConcatenatedLipSwish, Splines, Curves, SortedPairs, GatedNorm, SoftThresholdNorm, Rescaled,
    SlopeSplines, ExpandingSplines, Activation

Knots of splines:
    Knots, BoundedKnots, FreeKnots, knots_of_file

Placing particles:
    PlacementGrids

Factories:
    Made, MadeInTurn, takes_factories
"""

from pyro_gflows.deprecation import moved_names
from pyro_gflows.nn.activations import Activation, LipSwish, SortedPairs, Splines, Swish
from pyro_gflows.nn.autoregressive import AutoregressiveNetwork
from pyro_gflows.nn.branch import LipschitzSum
from pyro_gflows.nn.concatenated import ConcatenatedLipSwish, Curves
from pyro_gflows.nn.conditional_branch import BranchGiven, ConditionalBranch
from pyro_gflows.nn.conditioners import Conditioner, conditioner
from pyro_gflows.nn.contraction import Contraction, CustomContraction
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.dense_network import LipschitzDenseNetwork
from pyro_gflows.nn.expanding_splines import ExpandingSplines
from pyro_gflows.nn.factories import Made, MadeInTurn, takes_factories
from pyro_gflows.nn.graph_contraction import GraphContraction
from pyro_gflows.nn.graph_network import GraphNetwork
from pyro_gflows.nn.harmonics import Harmonics, shortest_frequencies
from pyro_gflows.nn.hidden_fields import HiddenFields
from pyro_gflows.nn.kernel import KernelLayer, kernels_once, kernels_together
from pyro_gflows.nn.knots import BoundedKnots, FreeKnots, Knots, knots_of_file
from pyro_gflows.nn.linear import EquivariantLinear
from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.nn.lipschitz_linear import LipschitzLinear
from pyro_gflows.nn.lipschitz_network import LipschitzNetwork, lipschitz_branch
from pyro_gflows.nn.networks import EquivariantCNN, EquivariantMLP, EquivariantNetwork
from pyro_gflows.nn.norm_activations import GatedNorm, SoftThresholdNorm
from pyro_gflows.nn.orthogonal_conv import AlmostOrthogonalConv, PolarConv
from pyro_gflows.nn.pair_potential import PairPotential
from pyro_gflows.nn.periodic_network import PeriodicNetwork
from pyro_gflows.nn.placement_grids import PlacementGrids
from pyro_gflows.nn.pooled_branch import PooledBranch, PooledBranchGiven
from pyro_gflows.nn.potential import Potential
from pyro_gflows.nn.radial import RadialTerm
from pyro_gflows.nn.rescaled import Rescaled
from pyro_gflows.nn.ridge import Ridges
from pyro_gflows.nn.row_features import RowFeatures
from pyro_gflows.nn.rows_attention import Over
from pyro_gflows.nn.rows_autoregressive import RowsAutoregressiveNetwork
from pyro_gflows.nn.rows_chain import RowsChain
from pyro_gflows.nn.rows_linear import RowsLinear
from pyro_gflows.nn.rows_lipschitz import LipschitzRowsLinear, LipschitzRowsNetwork
from pyro_gflows.nn.rows_mean import mean_over_rows
from pyro_gflows.nn.rows_network import RowsAttention, RowsNetwork
from pyro_gflows.nn.shear import Half, Shear
from pyro_gflows.nn.soft import SoftNetwork
from pyro_gflows.nn.splines import SlopeSplines
from pyro_gflows.nn.steerable import SteerableConv
from pyro_gflows.nn.terms import Term
from pyro_gflows.nn.torus_potential import TorusPotential, poisson_wave

__all__ = [
    "Activation",
    "AlmostOrthogonalConv",
    "AutoregressiveNetwork",
    "BoundedKnots",
    "BranchGiven",
    "ConcatenatedLipSwish",
    "ConditionalBranch",
    "Conditioner",
    "Contraction",
    "Curves",
    "CustomContraction",
    "EquivariantCNN",
    "EquivariantConv",
    "EquivariantLinear",
    "EquivariantMLP",
    "EquivariantNetwork",
    "ExpandingSplines",
    "FreeKnots",
    "GatedNorm",
    "GraphContraction",
    "GraphNetwork",
    "Half",
    "Harmonics",
    "HiddenFields",
    "KernelLayer",
    "Knots",
    "LipSwish",
    "LipschitzConv",
    "LipschitzDenseNetwork",
    "LipschitzLinear",
    "LipschitzNetwork",
    "LipschitzRowsLinear",
    "LipschitzRowsNetwork",
    "LipschitzSum",
    "Made",
    "MadeInTurn",
    "Over",
    "PairPotential",
    "PeriodicNetwork",
    "PlacementGrids",
    "PolarConv",
    "PooledBranch",
    "PooledBranchGiven",
    "Potential",
    "RadialTerm",
    "Rescaled",
    "Ridges",
    "RowFeatures",
    "RowsAttention",
    "RowsAutoregressiveNetwork",
    "RowsChain",
    "RowsLinear",
    "RowsNetwork",
    "Shear",
    "SlopeSplines",
    "SoftNetwork",
    "SoftThresholdNorm",
    "SortedPairs",
    "Splines",
    "SteerableConv",
    "Swish",
    "Term",
    "TorusPotential",
    "conditioner",
    "kernels_once",
    "kernels_together",
    "knots_of_file",
    "lipschitz_branch",
    "mean_over_rows",
    "poisson_wave",
    "shortest_frequencies",
    "takes_factories",
]

__getattr__ = moved_names(__name__, {"conditioner_from": "pyro_gflows.nn.factories:network_from"})
