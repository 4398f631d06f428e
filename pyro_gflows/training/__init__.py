"""Fitting a flow to data, or to a density that is known up to a constant.

Training:
    fit, fit_energy, FitResult, FitSettings, Validation, FitDiverged, Callback

Devices:
    Devices, Engine, OneDevice, is_first_process

Optimizers and schedules:
    Adam, TorchOptimizer, OptimizerSettings, Constant, OneCycle, Ramp, Schedule

Data:
    Sampler, StatefulSampler, OwnDraws, Augmentation, random_elements

Objectives:
    Objective, Likelihood, Energy, ELBO, Mixing, ForwardKL, AlphaMixing, reverse_kl_loss
"""

from pyro_gflows.training.augmentation import Augmentation, random_elements
from pyro_gflows.training.batches import Sampler, StatefulSampler
from pyro_gflows.training.callbacks import Callback
from pyro_gflows.training.energy_fitting import fit_energy
from pyro_gflows.training.engines.base import Engine, OneDevice
from pyro_gflows.training.engines.devices import Devices
from pyro_gflows.training.fitting import FitDiverged, FitResult, fit
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.objectives.elbo import ELBO
from pyro_gflows.training.objectives.energy import Energy
from pyro_gflows.training.objectives.likelihood import Likelihood
from pyro_gflows.training.objectives.mixing import AlphaMixing, ForwardKL, Mixing
from pyro_gflows.training.objectives.path_gradient import reverse_kl_loss
from pyro_gflows.training.optimizers import OptimizerSettings
from pyro_gflows.training.own_draws import OwnDraws
from pyro_gflows.training.processes import is_first_process
from pyro_gflows.training.settings import (
    Adam,
    Constant,
    FitSettings,
    OneCycle,
    Ramp,
    Schedule,
    TorchOptimizer,
    Validation,
)

__all__ = [
    "ELBO",
    "Adam",
    "AlphaMixing",
    "Augmentation",
    "Callback",
    "Constant",
    "Devices",
    "Energy",
    "Engine",
    "FitDiverged",
    "FitResult",
    "FitSettings",
    "ForwardKL",
    "Likelihood",
    "Mixing",
    "Objective",
    "OneCycle",
    "OneDevice",
    "OptimizerSettings",
    "OwnDraws",
    "Ramp",
    "Sampler",
    "Schedule",
    "StatefulSampler",
    "TorchOptimizer",
    "Validation",
    "fit",
    "fit_energy",
    "is_first_process",
    "random_elements",
    "reverse_kl_loss",
]
