"""The table of constructors has a row for every layer of the package."""

import runpy
from pathlib import Path

import pytest
import torch

import pyro_gflows
from pyro_gflows.actions import ImageAction, Split, VectorAction
from pyro_gflows.nn import SortedPairs
from pyro_gflows.numerics import ConstantMemory, KrylovLogDet, RouletteLogDet
from pyro_gflows.serialization.registry import registered_classes
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GResidual
from tests.constructors import CONDITIONAL, CONSTRUCTORS, TABLE, Row, conditional_flow, make, make_flow, slow_unless

ROOT = Path(__file__).parents[1]
USERS = [
    str(path.relative_to(ROOT)) for path in sorted(ROOT.rglob("*.py")) if "from tests.constructors" in path.read_text()
]


def _classes_in(description):
    if isinstance(description, list):
        return set().union(*map(_classes_in, description))
    if isinstance(description, dict):
        return {description.get("class")}.union(*map(_classes_in, description.values()))
    return set()


@pytest.mark.long
def test_every_registered_layer_and_split_has_a_row():
    met = {"AugmentedFlow", "DequantizedFlow", "EquivariantFlow", "VariationalDequantizer"}  # these contain layers
    for flow in [*map(make_flow, CONSTRUCTORS), *map(conditional_flow, CONDITIONAL)]:
        met |= _classes_in(flow.config()) | {type(module).__name__ for module in flow.modules()}
    layers = {
        name
        for name, cls in registered_classes().items()
        if issubclass(cls, torch.nn.Module | Split) and cls.__module__.startswith(pyro_gflows.__name__)
    }
    assert len(layers) > 20
    assert not layers - met, "add a row to tests/constructors/"


def test_weights_of_the_table_are_not_trivial(name):
    """Contract 23: many layers are the identity at the start, which passes most tests."""
    torch.manual_seed(0)
    start = dict(CONSTRUCTORS[name].build().double().named_parameters())
    for key, parameter in make(name).named_parameters():
        assert parameter.numel() == 0 or (parameter != start[key]).all(), key


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_table_is_the_same_each_time(name, dtype):
    first, second = make(name, dtype=dtype), make(name, dtype=dtype)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert randomize_(second, scale=0.0) is second


def _estimates(module):
    estimator = getattr(module, "log_det", None)
    estimator = estimator.estimator if isinstance(estimator, ConstantMemory) else estimator
    return isinstance(estimator, RouletteLogDet | KrylovLogDet)


@pytest.mark.parametrize("row", TABLE)
def test_the_traits_of_a_row_are_those_of_its_transform(row):
    """Tests choose rows by their traits, before anything is built."""
    row = TABLE[row]
    transform = row.build()
    modules = list(transform.modules())
    assert row == Row(
        row.family,
        row.what,
        row.build,
        image=transform.action_in.event_dim == 3,
        bounded=transform.codomain is not transform.action_out.space.constraint,
        estimated=any(map(_estimates, modules)),
        piecewise_linear=any(isinstance(module, SortedPairs) for module in modules),
        splits=any(isinstance(getattr(module, "split", None), Split) for module in modules),
        takes_context=transform.context_action is not None,
    )
    assert (row.family == "residual") == isinstance(transform, GResidual)


def test_a_quick_row_that_is_not_in_the_table_is_refused():
    with pytest.raises(KeyError, match="residual, none"):
        slow_unless(["residual, none"], TABLE)


@pytest.mark.parametrize("path", USERS)
def test_collecting_a_file_builds_nothing_of_the_table(path, monkeypatch):
    """No layer is built when the table, or a file of tests that uses it, is imported."""

    def refuse(self, *args, **kwargs):
        raise AssertionError(f"{type(self).__name__} is built at import")

    monkeypatch.setattr(torch.nn.Module, "__init__", refuse)
    if path.startswith("constructors"):
        for cls in (VectorAction, ImageAction):
            monkeypatch.setattr(cls, "__init__", refuse)
    runpy.run_path(str(ROOT / path), run_name="collected again")
