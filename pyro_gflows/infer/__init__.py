"""Fitting by maximum likelihood, held-out figures, checkpoints, saved models, and guides for Pyro models."""

from pyro_gflows.infer.augment import random_elements
from pyro_gflows.infer.data import check_data
from pyro_gflows.infer.evaluate import (
    gap,
    group_bits_per_dim,
    group_log_probs,
    invariance_error,
    log_probs,
    mean_and_error,
    nll,
    symmetrized_nll,
)
from pyro_gflows.infer.fit import FitDiverged, FitResult, fit
from pyro_gflows.infer.guides import AutoGFlow, LogRatioReparam, guide_transforms, orbit_representative
from pyro_gflows.infer.save import load, save
from pyro_gflows.infer.settings import Adam, Constant, FitSettings, HeldOut, OneCycle

__all__ = [
    "Adam",
    "AutoGFlow",
    "Constant",
    "FitDiverged",
    "FitResult",
    "FitSettings",
    "HeldOut",
    "LogRatioReparam",
    "OneCycle",
    "check_data",
    "fit",
    "gap",
    "group_bits_per_dim",
    "group_log_probs",
    "guide_transforms",
    "invariance_error",
    "load",
    "log_probs",
    "mean_and_error",
    "nll",
    "orbit_representative",
    "random_elements",
    "save",
    "symmetrized_nll",
]
