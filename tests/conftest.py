"""Fixtures that all tests share."""

import pyro
import pytest
import torch

from tests.contracts.second_device import SECOND, second_device
from tests.quick_look import quick_look

DEVICES = ["cpu", "second", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request):
    """A device of this machine, or the simulated second device of a machine without a GPU."""
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
    """The same random state and an empty Pyro parameter store for every test."""
    torch.manual_seed(0)
    pyro.clear_param_store()


def pytest_addoption(parser):
    parser.addoption(
        "--rows",
        type=int,
        metavar="N",
        help="a quick check: a test over the table of constructors keeps N rows of different families, any other test "
        "keeps N of its cases, and long tests are left out",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    count = config.getoption("--rows")
    if count is None:
        return
    if count < 1:
        raise pytest.UsageError(f"expected --rows of at least 1, got {count}")
    kept = set(quick_look([item for item in items if not item.get_closest_marker("long")], count))
    config.hook.pytest_deselected(items=[item for item in items if item not in kept])
    items[:] = [item for item in items if item in kept]
