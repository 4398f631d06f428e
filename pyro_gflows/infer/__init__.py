"""Fitting by maximum likelihood, held-out figures, checkpoints and saved models."""

from pyro_gflows.infer.augment import random_elements
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
from pyro_gflows.infer.save import load, save
from pyro_gflows.infer.settings import Adam, Constant, FitSettings, HeldOut, OneCycle

__all__ = [
    "Adam",
    "Constant",
    "FitDiverged",
    "FitResult",
    "FitSettings",
    "HeldOut",
    "OneCycle",
    "fit",
    "gap",
    "group_bits_per_dim",
    "group_log_probs",
    "invariance_error",
    "load",
    "log_probs",
    "mean_and_error",
    "nll",
    "random_elements",
    "save",
    "symmetrized_nll",
]
