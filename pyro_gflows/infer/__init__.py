"""Fitting by maximum likelihood or to an energy, figures, checkpoints, saved models, and guides for Pyro models."""

from pyro_gflows.infer.augment import random_elements
from pyro_gflows.infer.dequantise import DequantisedFlow, VariationalDequantiser, g_dequantiser
from pyro_gflows.infer.energy.fit import fit_energy
from pyro_gflows.infer.energy.mixing import AlphaMixing, ForwardKL
from pyro_gflows.infer.energy.own_draws import OwnDraws
from pyro_gflows.infer.energy.path_gradient import reverse_kl_loss
from pyro_gflows.infer.energy.report import EnergyReport, energy_report
from pyro_gflows.infer.evaluate import (
    InvarianceReport,
    gap,
    group_bits_per_dim,
    group_log_probs,
    invariance_error,
    invariance_errors,
    invariance_report,
    log_probs,
    mean_and_error,
    nll,
    symmetrized_nll,
)
from pyro_gflows.infer.fit import FitDiverged, FitResult, fit
from pyro_gflows.infer.guides import AutoGFlow, LogRatioReparam, OrbitFlow, guide_transforms, orbit_representative
from pyro_gflows.infer.image_report import ImageReport, image_report
from pyro_gflows.infer.importance import ImportanceReport, importance_report
from pyro_gflows.infer.log_det_error import LogDetError, log_det_error
from pyro_gflows.infer.migrations import eigenvector_blocks
from pyro_gflows.infer.save import load, save
from pyro_gflows.infer.symmetry_check import SymmetryReport, check_symmetry
from pyro_gflows.infer.training.data import check_data
from pyro_gflows.infer.training.settings import Adam, Constant, FitSettings, HeldOut, OneCycle, Ramp, TorchOptimizer

__all__ = [
    "Adam",
    "AlphaMixing",
    "AutoGFlow",
    "Constant",
    "DequantisedFlow",
    "EnergyReport",
    "FitDiverged",
    "FitResult",
    "FitSettings",
    "ForwardKL",
    "HeldOut",
    "ImageReport",
    "ImportanceReport",
    "InvarianceReport",
    "LogDetError",
    "LogRatioReparam",
    "OneCycle",
    "OrbitFlow",
    "OwnDraws",
    "Ramp",
    "SymmetryReport",
    "TorchOptimizer",
    "VariationalDequantiser",
    "check_data",
    "check_symmetry",
    "eigenvector_blocks",
    "energy_report",
    "fit",
    "fit_energy",
    "g_dequantiser",
    "gap",
    "group_bits_per_dim",
    "group_log_probs",
    "guide_transforms",
    "image_report",
    "importance_report",
    "invariance_error",
    "invariance_errors",
    "invariance_report",
    "load",
    "log_det_error",
    "log_probs",
    "mean_and_error",
    "nll",
    "orbit_representative",
    "random_elements",
    "reverse_kl_loss",
    "save",
    "symmetrized_nll",
]
