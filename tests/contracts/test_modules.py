"""Parameters, buffers, copies and checkpoints (contracts 4, 9, 11, 12, 16, 28, 30, 34, 44)."""

import copy
import pickle

import pytest
import torch

from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.groups.decomposition import decompose
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import Compose, Invert
from pyro_gflows.transforms.data_dependent import DataDependentTransform
from tests.constructors import CONSTRUCTORS, base_for, events, make, make_flow


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_every_way_of_composing_keeps_every_parameter(transform):
    """Contract 4: inverses, compositions and flows are modules that own their parts."""
    number = count(transform)
    assert number > 0
    for inverse in (transform.inv, Invert(transform), Compose([transform]).inv, Compose([transform.inv])):
        assert count(inverse) == number
        assert inverse.state_dict().keys() and len(set(inverse.state_dict())) == len(transform.state_dict())
    assert count(Compose([transform, transform.inv])) == number  # shared, and counted once
    base = base_for(transform.action_in)
    assert count(EquivariantFlow(base, [transform])) == number + count(base.module)
    assert count(EquivariantFlow(base, [transform, transform.inv.inv.inv])) == number + count(base.module)


def test_a_state_dict_holds_weights_and_bases_and_which_layers_are_set(transform):
    """A state dict holds nothing else.

    Another entry, such as an index that the action determines, would be missing in all files that were written before.
    """
    others = set(transform.state_dict()) - {parameter for parameter, _ in transform.named_parameters()}
    for module, _, kind in (entry.rpartition(".") for entry in others):
        owner = transform.get_submodule(module)
        if kind == "initialized":
            assert isinstance(owner, DataDependentTransform)
        else:
            assert isinstance(owner, FixedBasis) and kind == "value"


def test_state_dict_round_trip_is_strict_and_exact(name):
    """The weights and every basis they rest on are in the checkpoint (contracts 9, 28, 30, 34)."""
    flow, other = make_flow(name), make_flow(name)
    with torch.no_grad():
        for tensor in other.state_dict().values():  # other weights and bases, as on another machine
            if tensor.is_floating_point():
                tensor.add_(0.1)
    other.load_state_dict(flow.state_dict(), strict=True)
    x = events(flow, 3)
    assert torch.equal(other(x), flow(x))
    assert torch.equal(other.transform(x_of(other)), flow.transform(x_of(flow)))


def x_of(flow):
    return events(flow.transform, 2)


def test_checkpoint_of_a_model_never_evaluated_loads_into_one_in_eval(name):
    """Contract 28."""
    torch.manual_seed(1)
    fresh = CONSTRUCTORS[name].build().double().train()
    model = make(name).eval()
    x = events(model, 2)
    model(x)
    model.load_state_dict(fresh.state_dict())
    torch.testing.assert_close(model(x), fresh.eval()(x), rtol=1e-12, atol=1e-12)


def test_weights_changed_in_eval_are_used(transform):
    """Contract 28: no filter is cached."""
    x = events(transform, 2)
    before = transform(x.clone())
    randomize_(transform, scale=0.2)
    after = transform(x.clone())
    assert (before != after).any()
    twin = copy.deepcopy(transform).train()
    torch.testing.assert_close(twin(x.clone()), after, rtol=1e-10, atol=1e-10)


def test_functional_call_uses_the_given_weights(name):
    """Contract 28."""
    flow, other = make_flow(name), make_flow(name)
    randomize_(other, scale=0.2)
    x = events(flow, 2)
    swapped = torch.func.functional_call(flow, dict(other.named_parameters()), (x,))
    torch.testing.assert_close(swapped, other(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "duplicate", [copy.deepcopy, lambda flow: pickle.loads(pickle.dumps(flow))], ids=["copy", "pickle"]
)
def test_copies_after_a_forward_pass_with_gradient(flow, duplicate):
    """Contract 11: copies work, agree, share nothing, and carry no cache."""
    bare = len(pickle.dumps(flow))
    x = events(flow, 200)
    y = flow.dist.rsample((200,))
    flow(x).sum().backward()
    flow.zero_grad()
    twin = duplicate(flow)
    assert len(pickle.dumps(flow)) < bare + 2_000
    assert torch.equal(twin(x[:3]), flow(x[:3]))
    assert y.requires_grad
    randomize_(twin)
    assert (twin(x[:3]) != flow(x[:3])).all()


def test_torch_save_of_the_whole_module(flow, tmp_path):
    """Contract 28: the module holds no local function, which could not be saved."""
    torch.save(flow, tmp_path / "flow.pt")
    x = events(flow, 2)
    assert torch.equal(torch.load(tmp_path / "flow.pt", weights_only=False)(x), flow(x))


def test_description_rebuilds_the_structure(flow):
    rebuilt = EquivariantFlow.from_config(flow.config()).double().eval()
    rebuilt.load_state_dict(flow.state_dict())
    x = events(flow, 3)
    assert torch.equal(rebuilt(x), flow(x))
    assert describe(build(describe(flow.transform))) == describe(flow.transform)


def test_a_checkpoint_means_the_same_on_another_machine(flow, monkeypatch):
    """The bases are in the checkpoint, since eigenvectors may have other signs elsewhere (contract 30)."""
    eigh = torch.linalg.eigh

    def other_signs(matrix, *arguments):
        values, vectors = eigh(matrix, *arguments)
        signs = torch.ones_like(values)
        signs[..., ::2] = -1.0
        return values, vectors * signs[..., None, :]

    decompose.cache_clear()
    monkeypatch.setattr(torch.linalg, "eigh", other_signs)
    try:
        other = EquivariantFlow.from_config(flow.config()).double().eval()
        other.load_state_dict(flow.state_dict())
        x = events(flow, 3)
        torch.testing.assert_close(other(x), flow(x), rtol=1e-9, atol=1e-9)
    finally:
        decompose.cache_clear()


def test_buffers_left_out_of_checkpoints_are_the_same_in_every_build(name):
    """Contract 30: buffers that are not stored depend on the configuration alone."""
    first, second = CONSTRUCTORS[name].build(), CONSTRUCTORS[name].build()
    stored = first.state_dict().keys()
    others = dict(second.named_buffers())
    for key, buffer in first.named_buffers():
        if key not in stored:
            assert torch.equal(buffer, others[key]), key


@pytest.mark.long
def test_no_tensor_is_left_behind(flow, device):
    """Contract 9: every tensor of a module follows ``.to``, and none is a plain attribute."""
    x = events(flow, 2)
    flow = flow.to(device)
    assert flow(x.to(device)).device.type == flow.dist.sample().device.type == device.type
    wide = flow.float()
    assert wide(x.to(device, torch.float32)).dtype == wide.dist.sample().dtype == torch.float32
    back = flow.double()
    assert back(x.to(device)).dtype == back.dist.sample().dtype == torch.float64


def test_forward_is_log_prob_and_hooks_see_it(flow):
    """Contract 12: a wrapper such as DistributedDataParallel reaches the computation of the flow."""
    seen = []
    flow.register_forward_hook(lambda module, arguments, output: seen.append(output))
    x = events(flow, 3)
    assert torch.equal(flow(x), flow.dist.log_prob(x))
    assert len(seen) == 1


def test_forward_never_changes_the_state(flow):
    """Contract 44: data-dependent starts are explicit."""
    before = copy.deepcopy(flow.state_dict())
    flow.train()
    flow(events(flow, 5))
    flow.dist.sample((5,))
    for key, value in flow.state_dict().items():
        assert torch.equal(value, before[key]), key
    flow.initialize(5 * events(flow, 50))
    assert flow(events(flow, 3)).isfinite().all()


def test_built_while_the_default_dtype_is_float64(name):
    """Contract 16."""
    torch.set_default_dtype(torch.float64)
    try:
        transform = CONSTRUCTORS[name].build()
    finally:
        torch.set_default_dtype(torch.float32)
    assert {parameter.dtype for parameter in transform.parameters()} == {torch.float64}
    assert transform(events(transform, 2)).dtype == torch.float64
