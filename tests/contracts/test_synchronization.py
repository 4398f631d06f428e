"""How often a training step waits for the device: once, when the loss and the norm of the gradient are read."""

import warnings

import pyro
import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction
from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.numerics import ExactLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.training import FitSettings
from pyro_gflows.training.objectives.likelihood import Likelihood
from pyro_gflows.training.trainer import Trainer
from pyro_gflows.transforms import ElementwiseSpline, GActNorm, g_autoregressive, g_coupling, g_residual
from tests.contracts.second_device import SECOND, second_device

FIELDS = VectorAction.regular("C4", copies=4)
PLANE = VectorAction.plane("D4")
LAYERS = {
    "coupling": lambda: [g_coupling(FIELDS, width=2), GActNorm(FIELDS), g_coupling(FIELDS, width=2)],
    "spline coupling": lambda: [g_coupling(FIELDS, width=2, transformer=ElementwiseSpline)],
    "autoregressive": lambda: [g_autoregressive(FIELDS, width=2), g_autoregressive(FIELDS, width=2)],
    "residual, ridges": lambda: [g_residual(PLANE), g_residual(PLANE)],
    "residual, network": lambda: [
        g_residual(FIELDS, branch=lambda action: LipschitzNetwork(action, width=2), log_det=ExactLogDet())
    ],
}


def trainer_of(name, device):
    torch.manual_seed(0)
    layers = LAYERS[name]()
    flow = randomize_(EquivariantFlow(InvariantNormal(layers[0].action_in), layers))
    settings = FitSettings(steps=20, batch_size=32)
    flow.to(device)
    data = as_rows(torch.randn(64, *flow.base.event_shape, device=device))
    trainer = Trainer(Likelihood(flow, data, settings=settings, augment=None, validation=None), settings=settings)
    trainer.start()
    return trainer


@pytest.mark.parametrize("name", LAYERS)
def test_a_training_step_waits_once(name):
    with pyro.validation_enabled(False), second_device() as device:
        trainer = trainer_of(name, SECOND)
        trainer.step()  # tables are made, and the first values are noted
        device.reads.clear()
        trainer.step()
        assert device.reads.total() == 1, dict(device.reads)


@pytest.mark.cuda
@pytest.mark.parametrize("name", LAYERS)
def test_a_training_step_waits_once_on_cuda(name):
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    with pyro.validation_enabled(False):
        trainer = trainer_of(name, torch.device("cuda"))
        trainer.step()
        try:
            torch.cuda.set_sync_debug_mode("warn")
            with warnings.catch_warnings(record=True) as found:
                warnings.simplefilter("always")
                trainer.step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    waits = [str(warning.message) for warning in found if "synchroniz" in str(warning.message)]
    assert len(waits) <= 1, waits
