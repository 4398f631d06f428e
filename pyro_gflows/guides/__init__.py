"""Guides for Pyro models whose posterior has a symmetry, and functions that check the model and read the posterior.

Guides:
    AutoGFlow, guide_transforms, find_mode

The log-joint of a model:
    log_joint_invariance, LogJointReport, LogJoint

Reading the posterior:
    orbit_representative, random_images

Sites on the simplex:
    LogRatioReparam, IsometricLogRatio
"""

from pyro_gflows.guides.auto import AutoGFlow
from pyro_gflows.guides.default_flow import guide_transforms
from pyro_gflows.guides.images_of_draws import random_images
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
    "random_images",
]
