"""Fixtures that all tests share."""

import collections

import pyro
import pytest
import torch

from tests.constructors import TABLE, some_rows

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]


@pytest.fixture(params=DEVICES)
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(autouse=True)
def fresh_start():
    """The same random numbers and an empty Pyro parameter store for every test."""
    torch.manual_seed(0)
    pyro.clear_param_store()


def pytest_addoption(parser):
    parser.addoption(
        "--rows",
        type=int,
        metavar="N",
        help="a quick look: every test over the table of constructors keeps N rows, spread over the families, and long "
        "tests are left out",
    )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config, items):
    count = config.getoption("--rows")
    if count is None:
        return
    if count < 1:
        raise pytest.UsageError(f"expected --rows of at least 1, got {count}")
    over = collections.defaultdict(dict)  # of each test and each of its arguments: the rows, in their order
    for item in items:
        for place, name in _rows_of(item):
            over[place][name] = None
    kept = {place: some_rows(names, count, key=str(place)) for place, names in over.items()}
    left_out = [
        item
        for item in items
        if item.get_closest_marker("long") or any(name not in kept[place] for place, name in _rows_of(item))
    ]
    config.hook.pytest_deselected(items=left_out)
    items[:] = [item for item in items if item not in set(left_out)]


def _rows_of(item):
    """The rows that a test case is for, each with the test and the argument that has it."""
    arguments = item.callspec.params if hasattr(item, "callspec") else {}
    test = (item.path.name, item.originalname)
    return [((*test, key), value) for key, value in arguments.items() if isinstance(value, str) and value in TABLE]
