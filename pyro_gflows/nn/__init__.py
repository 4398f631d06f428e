"""Equivariant networks: linear maps, convolutions, activations and residual branches with certified bounds."""

from pyro_gflows.nn.activations import LipSwish, SortedPairs, Splines
from pyro_gflows.nn.autoregressive import AutoregressiveNetwork
from pyro_gflows.nn.branch import LipschitzSum
from pyro_gflows.nn.conditional_branch import ConditionalBranch
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.kernel import KernelLayer, kernels_once
from pyro_gflows.nn.linear import EquivariantLinear, LipschitzLinear
from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.nn.lipschitz_network import LipschitzNetwork, lipschitz_branch
from pyro_gflows.nn.networks import (
    EquivariantCNN,
    EquivariantMLP,
    EquivariantNetwork,
    conditioner,
)
from pyro_gflows.nn.norm_activations import GatedNorm, SoftThresholdNorm
from pyro_gflows.nn.radial import RadialTerm
from pyro_gflows.nn.ridge import Ridges
from pyro_gflows.nn.soft import SoftNetwork
from pyro_gflows.nn.splines import SlopeSplines
from pyro_gflows.nn.steerable import SteerableConv

__all__ = [
    "AutoregressiveNetwork",
    "ConditionalBranch",
    "EquivariantCNN",
    "EquivariantConv",
    "EquivariantLinear",
    "EquivariantMLP",
    "EquivariantNetwork",
    "GatedNorm",
    "KernelLayer",
    "LipSwish",
    "LipschitzConv",
    "LipschitzLinear",
    "LipschitzNetwork",
    "LipschitzSum",
    "RadialTerm",
    "Ridges",
    "SlopeSplines",
    "SoftNetwork",
    "SoftThresholdNorm",
    "SortedPairs",
    "Splines",
    "SteerableConv",
    "conditioner",
    "kernels_once",
    "lipschitz_branch",
]
