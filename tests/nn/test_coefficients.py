"""No parameter has 0 elements, and files that were written when some had still load."""

import copy
import pickle

import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, GResidual, InvariantNormal, VectorAction
from pyro_gflows.nn import LipschitzNetwork
from pyro_gflows.serialization import load, save
from pyro_gflows.serialization.files import read_tensors, write_tensors
from pyro_gflows.training import FitSettings, fit
from pyro_gflows.training.checkpoint import optimizer_tensors, restore_optimizer
from tests.constructors import TABLE

# all parameters that the flow below once had, in their order
FORMER = [
    "transform.parts.0.log_scale",
    "transform.parts.0.shift",
    "transform.parts.1.branch.layers.0.bias",
    "transform.parts.1.branch.layers.0.weights.0",
    "transform.parts.1.branch.layers.1.bias",
    "transform.parts.1.branch.layers.1.weights.0",
    "transform.parts.1.branch.activations.0.raw_threshold",
    "transform.parts.2.log_scale",
    "transform.parts.2.shift",
]
EMPTY = [name for name in FORMER if name.endswith(("shift", "bias"))]


def flow_without_shifts():
    """Neither the plane nor a hidden layer of its copies has an invariant direction."""
    action = VectorAction.space("SO(3)", copies=2)
    torch.manual_seed(0)
    return EquivariantFlow(
        InvariantNormal(action),
        [GActNorm(action), GResidual(action, LipschitzNetwork(action, width=1, depth=1)), GActNorm(action)],
    ).double()


@pytest.mark.parametrize("name", TABLE)
def test_every_parameter_has_elements(name):
    made = TABLE[name].build()
    assert [key for key, parameter in made.named_parameters() if parameter.numel() == 0] == []


def test_the_map_keeps_its_dtype_and_copies():
    flow = flow_without_shifts()
    x = torch.randn(3, 6, dtype=torch.float64)
    for other in (copy.deepcopy(flow), pickle.loads(pickle.dumps(flow)), copy.deepcopy(flow).float().double()):
        other.load_state_dict(flow.state_dict())
        assert torch.equal(other(x), flow(x)) and other(x).dtype == torch.float64


def test_a_file_with_empty_parameters_loads(tmp_path):
    flow = flow_without_shifts()
    flow.initialize(torch.randn(50, 6, dtype=torch.float64))
    empty = {name: torch.zeros(0, dtype=torch.float64) for name in EMPTY}
    with pytest.raises(RuntimeError, match="Unexpected key"):  # a parameter that is not empty is no such thing
        flow.load_state_dict({**flow.state_dict(), EMPTY[0]: torch.zeros(1)})
    twin = flow_without_shifts()
    twin.load_state_dict({**flow.state_dict(), **empty})
    x = torch.randn(3, 6, dtype=torch.float64)
    assert torch.equal(twin(x), flow(x))
    with pytest.MonkeyPatch.context() as patch:  # as a former version wrote it
        state = {**flow.state_dict(), **empty}
        patch.setattr(flow, "state_dict", lambda: state)
        save(flow, tmp_path)
    assert torch.equal(load(tmp_path)(x), flow(x).detach())


def test_a_checkpoint_with_empty_parameters_is_resumed(tmp_path):
    """The optimizer numbers its parameters, and counted the empty ones."""
    settings = FitSettings(steps=6, batch_size=20, checkpoint_every=3)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def run(folder, *, stop=None, resume=False):
        flow, calls = flow_without_shifts(), 0

        def augment(x, generator):
            nonlocal calls
            calls += 1
            if calls == stop:
                raise InterruptedError
            return x

        try:
            fit(flow, x, settings=settings, folder=folder, augment=augment, resume=resume, progress=False)
        except InterruptedError:
            assert stop is not None
        return flow.state_dict()

    whole = run(tmp_path / "whole")
    run(tmp_path / "stopped", stop=6)
    path = tmp_path / "stopped" / "checkpoint.safetensors"
    tensors, description = read_tensors(path)
    names = [name for name, _ in flow_without_shifts().named_parameters()]
    position = {name: FORMER.index(name) for name in FORMER}
    old = {}
    for key, value in tensors.items():
        group, rest = key.split("/", 1)
        if group == "optimizer":
            number, what = rest.split("/")
            old[f"optimizer/{position[names[int(number)]]}/{what}"] = value
        elif not key.endswith("initialized"):
            old[key] = value
    for name in EMPTY:
        old[f"flow/{name}"] = torch.zeros(0, dtype=torch.float64)
        for what in ("exp_avg", "exp_avg_sq"):
            old[f"optimizer/{position[name]}/{what}"] = torch.zeros(0, dtype=torch.float64)
        old[f"optimizer/{position[name]}/step"] = torch.tensor(3.0)
    write_tensors(path, old, description)
    resumed = run(tmp_path / "stopped", resume=True)
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_an_optimizer_of_empty_parameters_is_restored_as_it_was():
    """Layers of a user's own may still have some."""
    parameters = [torch.nn.Parameter(torch.ones(n)) for n in (2, 0, 3)]
    optimizer = torch.optim.Adam(parameters)
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    other = torch.optim.Adam(parameters)
    restore_optimizer(other, optimizer_tensors(optimizer))
    assert [other.state[p]["exp_avg"].numel() for p in parameters] == [2, 0, 3]
