"""Training of a flow: the objective says what is minimized, the loop does the rest."""

from pyro_gflows.training.augmentation import random_elements
from pyro_gflows.training.energy_fitting import fit_energy
from pyro_gflows.training.fitting import FitDiverged, FitResult, fit
from pyro_gflows.training.objectives.mixing import AlphaMixing, ForwardKL
from pyro_gflows.training.objectives.path_gradient import reverse_kl_loss
from pyro_gflows.training.own_draws import OwnDraws
from pyro_gflows.training.settings import Adam, Constant, FitSettings, OneCycle, Ramp, TorchOptimizer, Validation

__all__ = [
    "Adam",
    "AlphaMixing",
    "Constant",
    "FitDiverged",
    "FitResult",
    "FitSettings",
    "ForwardKL",
    "OneCycle",
    "OwnDraws",
    "Ramp",
    "TorchOptimizer",
    "Validation",
    "fit",
    "fit_energy",
    "random_elements",
    "reverse_kl_loss",
]
