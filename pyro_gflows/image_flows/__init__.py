"""Multi-scale flows of images: one constructor for coupling flows, one for residual flows."""

from __future__ import annotations

from pyro_gflows.image_flows.coupling import g_coupling_image_flow
from pyro_gflows.image_flows.residual import g_residual_image_flow
from pyro_gflows.image_flows.scales import Memory

__all__ = ["Memory", "g_coupling_image_flow", "g_residual_image_flow"]
