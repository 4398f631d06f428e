"""Fixtures that all tests share."""

import pyro
import pytest
import torch

from tests.contracts.second_device import SECOND, second_device

DEVICES = ["cpu", "second", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request):
    """A device of this machine, or the second one that a machine without a GPU has in name."""
    if request.param == "second":
        with second_device():
            yield SECOND
        return
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    yield torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def fresh_start():
    """The same random numbers and an empty Pyro parameter store for every test."""
    torch.manual_seed(0)
    pyro.clear_param_store()
