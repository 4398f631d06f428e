"""The two engines of the training loop, for the tests that run over both."""

import importlib.util

import pytest

from pyro_gflows.training import Devices, energy_fitting, fitting

ENGINES = {"plain": Devices(), "fabric": Devices(1, accelerator="cpu")}


@pytest.fixture(params=ENGINES)
def on_both_engines(request, monkeypatch):
    """Lets fit and fit_energy train on one device without Lightning, and on one device by its Fabric."""
    if request.param == "fabric" and importlib.util.find_spec("lightning") is None:
        pytest.skip("Lightning is not installed")
    for module in (fitting, energy_fitting):
        monkeypatch.setattr(module, "as_devices", lambda devices: ENGINES[request.param])
