"""Guides whose posterior is exactly invariant, and what they need."""

from pyro_gflows.infer.guides.auto import AutoGFlow
from pyro_gflows.infer.guides.default_flow import guide_transforms
from pyro_gflows.infer.guides.invariance import LogJointReport, log_joint_invariance
from pyro_gflows.infer.guides.log_ratio import IsometricLogRatio, LogRatioReparam
from pyro_gflows.infer.guides.orbit_flow import OrbitFlow
from pyro_gflows.infer.guides.representative import orbit_representative
from pyro_gflows.infer.guides.start import find_mode

__all__ = [
    "AutoGFlow",
    "IsometricLogRatio",
    "LogJointReport",
    "LogRatioReparam",
    "OrbitFlow",
    "find_mode",
    "guide_transforms",
    "log_joint_invariance",
    "orbit_representative",
]
