"""Training of a flow: the objective says what is minimized, the loop does the rest."""

from pyro_gflows.training.augmentation import Augmentation, random_elements
from pyro_gflows.training.batches import Sampler
from pyro_gflows.training.callbacks import Callback
from pyro_gflows.training.energy_fitting import fit_energy
from pyro_gflows.training.fitting import FitDiverged, FitResult, fit
from pyro_gflows.training.objectives.mixing import AlphaMixing, ForwardKL, Mixing
from pyro_gflows.training.objectives.path_gradient import reverse_kl_loss
from pyro_gflows.training.optimizers import OptimizerSettings
from pyro_gflows.training.own_draws import OwnDraws
from pyro_gflows.training.settings import Adam, Constant, FitSettings, HeldOut, OneCycle, Ramp, Schedule, TorchOptimizer

__all__ = [
    "Adam",
    "AlphaMixing",
    "Augmentation",
    "Callback",
    "Constant",
    "FitDiverged",
    "FitResult",
    "FitSettings",
    "ForwardKL",
    "HeldOut",
    "Mixing",
    "OneCycle",
    "OptimizerSettings",
    "OwnDraws",
    "Ramp",
    "Sampler",
    "Schedule",
    "TorchOptimizer",
    "fit",
    "fit_energy",
    "random_elements",
    "reverse_kl_loss",
]
