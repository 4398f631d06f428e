"""Features of torch that versions from 2.3 on have under other names, or not at all."""

import importlib.util
import sys
import types

import pytest
import torch

from pyro_gflows.numerics import RouletteLogDet, precision
from pyro_gflows.numerics.tracing import refuse_tracing


def fresh_precision():
    """The module as it is when it is imported now."""
    spec = importlib.util.spec_from_file_location("precision_anew", precision.__file__)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def asked_for_no_mps(device):
    if device == "mps":
        raise RuntimeError("unknown device type for autocast in get_autocast_dispatch_key_from_device_type")
    return device == "cpu"


def test_autocast_of_a_version_that_has_none_for_mps(monkeypatch):
    monkeypatch.setattr(torch, "is_autocast_enabled", asked_for_no_mps)
    monkeypatch.setattr(torch.amp.autocast_mode, "is_autocast_available", lambda device: device != "mps")
    assert fresh_precision().casting() == ["cpu"]


def test_autocast_of_a_version_that_asks_for_each_device_by_a_name_of_its_own(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.3.1+cpu")
    monkeypatch.setattr(torch, "is_autocast_enabled", lambda: False)
    monkeypatch.setattr(torch, "is_autocast_cpu_enabled", lambda: True, raising=False)
    assert fresh_precision().casting() == ["cpu"]


@pytest.mark.parametrize("name", ["get_proxy_mode", "get_innermost_proxy_mode"])
def test_recording_is_found_by_either_name(monkeypatch, name):
    recorder = types.SimpleNamespace(**{name: lambda: None})
    monkeypatch.setitem(sys.modules, "torch.fx.experimental.proxy_tensor", recorder)
    x = torch.zeros(2, 2, dtype=torch.float64)
    RouletteLogDet()(lambda x: 0.5 * x, x, 1, lipschitz=0.5, training=True)
    setattr(recorder, name, lambda: "a mode")
    with pytest.raises(RuntimeError, match="make_fx or torch.func.linearize would keep the number of one call"):
        refuse_tracing("this")
