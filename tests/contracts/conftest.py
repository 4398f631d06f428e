"""Every contract test that asks for ``name`` runs over the whole table of constructors."""

import pytest

from tests.constructors import CONSTRUCTORS, make, make_flow


@pytest.fixture(params=CONSTRUCTORS)
def name(request):
    return request.param


@pytest.fixture
def transform(name):
    return make(name)


@pytest.fixture(params=[False, True], ids=["random weights", "trained"])
def flow_before_and_after(name, request):
    return make_flow(name, trained=request.param)


@pytest.fixture
def flow(name):
    return make_flow(name)
