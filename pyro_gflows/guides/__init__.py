"""Guides for Pyro models whose posterior has a symmetry, and the tools for checking and reading them."""

from pyro_gflows.guides.auto import AutoGFlow
from pyro_gflows.guides.default_flow import guide_transforms
from pyro_gflows.guides.invariance import LogJointReport, log_joint_invariance
from pyro_gflows.guides.log_joint import LogJoint
from pyro_gflows.guides.log_ratio import IsometricLogRatio, LogRatioReparam
from pyro_gflows.guides.representative import orbit_representative
from pyro_gflows.guides.start import find_mode

__all__ = [
    "AutoGFlow",
    "IsometricLogRatio",
    "LogJoint",
    "LogJointReport",
    "LogRatioReparam",
    "find_mode",
    "guide_transforms",
    "log_joint_invariance",
    "orbit_representative",
]
