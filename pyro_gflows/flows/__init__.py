"""Flows: a base with transforms, flows on a padded space, flows of images, dequantization, and families of flows.

Flows:
    EquivariantFlow, FlowDistribution, OrbitFlow, Canonicalized, Learnable

Densities of a few particles:
    InternalCoordinates, symmetrized_internal_coordinates

Flows on a padded space:
    augment, AugmentedFlow, g_augmented_particle_flow, g_padding, VariationalFlow

Flows of particles:
    g_placement_flow, placement_on_grids, to_train

Flows of images:
    g_coupling_image_flow, g_residual_image_flow, g_soft_coupling_image_flow, DequantizedFlow,
    VariationalDequantizer, g_dequantizer

Families and types:
    FAMILIES, ChannelMixing, Memory, Preprocess, SplitKind
"""

from pyro_gflows.flows.augmented import AugmentedFlow, augment
from pyro_gflows.flows.canonicalized import Canonicalized
from pyro_gflows.flows.dequantization import DequantizedFlow, VariationalDequantizer, g_dequantizer
from pyro_gflows.flows.distribution import FlowDistribution
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.flows.families import FAMILIES
from pyro_gflows.flows.image_coupling import SplitKind, g_coupling_image_flow, g_soft_coupling_image_flow
from pyro_gflows.flows.image_residual import g_residual_image_flow
from pyro_gflows.flows.image_scales import ChannelMixing, Memory, Preprocess
from pyro_gflows.flows.internal_coordinates import InternalCoordinates, symmetrized_internal_coordinates
from pyro_gflows.flows.learnable import Learnable
from pyro_gflows.flows.orbit_flow import OrbitFlow
from pyro_gflows.flows.padding_encoder import g_padding
from pyro_gflows.flows.particles import g_augmented_particle_flow
from pyro_gflows.flows.placement import g_placement_flow, placement_on_grids, to_train
from pyro_gflows.flows.variational import VariationalFlow

__all__ = [
    "FAMILIES",
    "AugmentedFlow",
    "Canonicalized",
    "ChannelMixing",
    "DequantizedFlow",
    "EquivariantFlow",
    "FlowDistribution",
    "InternalCoordinates",
    "Learnable",
    "Memory",
    "OrbitFlow",
    "Preprocess",
    "SplitKind",
    "VariationalDequantizer",
    "VariationalFlow",
    "augment",
    "g_augmented_particle_flow",
    "g_coupling_image_flow",
    "g_dequantizer",
    "g_padding",
    "g_placement_flow",
    "g_residual_image_flow",
    "g_soft_coupling_image_flow",
    "placement_on_grids",
    "symmetrized_internal_coordinates",
    "to_train",
]
