"""The table of constructors knows every layer of the package."""

import pytest
import torch

import pyro_gflows
from pyro_gflows.actions import Split
from pyro_gflows.registry import registered_classes
from pyro_gflows.testing import randomize_
from tests.constructors import CONDITIONAL, CONSTRUCTORS, conditional_flow, make, make_flow


def _classes_in(description):
    if isinstance(description, list):
        return set().union(*map(_classes_in, description))
    if isinstance(description, dict):
        return {description.get("class")}.union(*map(_classes_in, description.values()))
    return set()


def test_every_registered_layer_and_split_has_a_row():
    met = {"EquivariantFlow", "DequantisedFlow", "VariationalDequantiser"}  # made of layers
    for flow in [*map(make_flow, CONSTRUCTORS), *map(conditional_flow, CONDITIONAL)]:
        met |= _classes_in(flow.config()) | {type(module).__name__ for module in flow.modules()}
    layers = {
        name
        for name, cls in registered_classes().items()
        if issubclass(cls, torch.nn.Module | Split) and cls.__module__.startswith(pyro_gflows.__name__)
    }
    assert len(layers) > 20
    assert not layers - met, "add a row to tests/constructors.py"


def test_weights_of_the_table_are_not_trivial(name):
    """Contract 23: at the start many layers are the identity, of which everything is true."""
    torch.manual_seed(0)
    start = dict(CONSTRUCTORS[name]().double().named_parameters())
    for key, parameter in make(name).named_parameters():
        assert parameter.numel() == 0 or (parameter != start[key]).all(), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_table_is_the_same_each_time(name, dtype):
    first, second = make(name, dtype=dtype), make(name, dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert randomize_(second, scale=0.0) is second
