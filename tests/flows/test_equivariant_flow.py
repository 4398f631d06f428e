"""EquivariantFlow: checks at construction, one density, and descriptions that rebuild it."""

import copy
import json
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from torch import nn

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    GResidual,
    GSqueeze,
    ImageAction,
    InvariantNormal,
    Symmetrized,
    VectorAction,
    g_coupling,
    g_residual,
)
from pyro_gflows.serialization.registry import describe

D8 = VectorAction.plane("D8")


def small(**options):
    return EquivariantFlow(InvariantNormal(D8, **options), [GActNorm(D8), g_residual(D8)])


def test_a_description_rebuilds_the_flow():
    """Here in full; tests/contracts does it for every constructor."""
    flow = small(covariance="isotypic").double()
    twin = EquivariantFlow.from_config(json.loads(json.dumps(flow.config()))).double()
    assert twin.config() == flow.config()
    assert repr(twin.action) == repr(flow.action)
    twin.load_state_dict(flow.state_dict())
    x = torch.randn(5, 2, dtype=torch.float64)
    assert torch.equal(twin(x), flow(x))


def test_the_density_is_the_change_of_variables():
    flow = small().double()
    y = torch.randn(4, 2, dtype=torch.float64)
    x, ladj = y, torch.zeros(4, dtype=torch.float64)
    for transform in reversed(flow.transforms):
        x, part = transform.inv_call_and_ladj(x)
        ladj = ladj + part
    torch.testing.assert_close(flow(y), flow.base.log_prob(x) + ladj)
    assert torch.equal(flow(y), flow.dist.log_prob(y))


def test_everything_is_registered_once():
    flow = small(covariance="isotypic", mean=False)
    names = [name for name, _ in flow.named_parameters()]
    assert any(name.startswith("base_module.") for name in names)
    assert any(name.startswith("transform.") for name in names)
    assert len({id(parameter) for parameter in flow.parameters()}) == len(names)
    twin = copy.deepcopy(flow)
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    assert (twin(torch.ones(2)) != flow(torch.ones(2))).all()
    assert twin.base.module is twin.base_module


def test_the_action_of_the_data_is_the_last_ones():
    image = ImageAction("C4", 1, size=4)
    squeeze = GSqueeze(image)
    flow = EquivariantFlow(InvariantNormal(squeeze.action_out), [squeeze.inv])
    assert flow.action == image
    assert flow.dist.sample((3,)).shape == (3, 1, 4, 4)
    assert flow.transforms == [squeeze.inv]
    assert str(image) in repr(flow)


def test_initialize_standardizes_the_base_side():
    flow = EquivariantFlow(InvariantNormal(D8), [GActNorm(D8)])
    y = 9 * torch.randn(500, 2)
    flow.initialize(y)
    x = flow.transforms[0].inv(y)
    assert x.square().mean().item() == pytest.approx(1.0, abs=1e-5)


def test_trains_in_a_pyro_model():
    flow = small()
    x = torch.randn(64, 2)

    def model(x):
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("x", flow.dist, obs=x)

    svi = pyro.infer.SVI(model, lambda x: None, pyro.optim.Adam({"lr": 1e-2}), pyro.infer.Trace_ELBO())
    losses = [svi.step(x) for _ in range(5)]
    assert losses[-1] < losses[0]


def test_a_finite_group_takes_any_base():
    base = Symmetrized(dist.Normal(torch.tensor([2.0, 0.0]), 1.0).to_event(1), D8)
    flow = EquivariantFlow(base, [g_residual(D8)])
    x = torch.randn(3, 2)
    torch.testing.assert_close(flow(D8.act(torch.tensor(3), x)), flow(x))


class Plain(nn.Module):
    """A user's branch that nobody registered."""

    def forward(self, x):
        return 0.5 * x

    def lipschitz_bound(self):
        return torch.tensor(0.5)


def test_an_unregistered_class_names_the_way_by_state_dict():
    flow = EquivariantFlow(InvariantNormal(D8), [GResidual(D8, Plain())])
    with pytest.raises(TypeError, match=r"Plain is not registered.*flow.state_dict\(\) and flow.load_state_dict"):
        flow.config()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: EquivariantFlow(dist.Normal(0.0, 1.0), [GActNorm(D8)]),
            TypeError,
            r"invariant base such as InvariantNormal\(action\), got Normal; wrap .* Symmetrized",
        ),
        (lambda: EquivariantFlow(InvariantNormal(D8), []), ValueError, "at least one transform"),
        (
            lambda: EquivariantFlow(InvariantNormal(D8), [dist.transforms.AffineTransform(0.0, 2.0)]),
            TypeError,
            "transform 0: expected an EquivariantTransform .* got AffineTransform",
        ),
        (
            lambda: EquivariantFlow(InvariantNormal(VectorAction.plane("C8")), [GActNorm(D8)]),
            ValueError,
            r"the base is invariant under VectorAction\(C8 .* the transform expects VectorAction\(D8",
        ),
        (
            lambda: EquivariantFlow(InvariantNormal(D8), [GActNorm(D8), GActNorm(VectorAction.plane("C8"))]),
            ValueError,
            r"transforms 0 and 1 do not fit: .*VectorAction\(D8 .*VectorAction\(C8",
        ),
        (lambda: EquivariantFlow.from_config({"class": "GActNorm"}), ValueError, "damaged description|EquivariantFlow"),
        (
            lambda: EquivariantFlow.from_config(describe(GActNorm(D8))),
            ValueError,
            "expected .* an EquivariantFlow, got that of",
        ),
        (
            lambda: EquivariantFlow(InvariantNormal(D8), GActNorm(D8)),
            TypeError,
            "a list of transforms, got one GActNorm",
        ),
        (lambda: small()(torch.zeros(3, 3)), ValueError, r"expected x of shape \(\.\.\., 2\) .* got \(3, 3\)"),
        (lambda: small()(torch.zeros(3, 2, dtype=torch.int64)), TypeError, "floating-point tensor, got torch.int64"),
        (
            lambda: small().initialize(torch.tensor([[0.0, 1.0], [2.0, float("nan")]])),
            ValueError,
            "expected finite events, got NaN or inf",
        ),
        (lambda: small().initialize(torch.zeros(1, 2)), ValueError, r"at least 2 events .* got shape \(1, 2\)"),
        (
            lambda: small().initialize(torch.zeros(3, 3)),
            ValueError,
            r"expected x of shape \(\.\.\., 2\).* got \(3, 3\)",
        ),
    ],
)
def test_bad_parts_and_bad_data_say_what_was_expected(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_pickle_after_training_in_pyro(tmp_path):
    """The param store hangs weak references on parameters, which pickle refuses."""
    vectors = VectorAction.space("SO(3)", copies=2)
    flow = EquivariantFlow(InvariantNormal(vectors, covariance="full"), [g_coupling(vectors, width=2, depth=1)])
    x = torch.randn(4, 6)

    def model():
        pyro.module("flow", flow)
        with pyro.plate("data", len(x)):
            pyro.sample("x", flow.dist, obs=x)

    pyro.clear_param_store()
    svi = SVI(model, lambda: None, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    svi.step()
    transform = pickle.loads(pickle.dumps(flow.transform))
    assert torch.equal(transform(x), flow.transform(x))
    svi.step()
    torch.save(flow, tmp_path / "flow.pt")
    for twin in (pickle.loads(pickle.dumps(flow)), torch.load(tmp_path / "flow.pt", weights_only=False)):
        assert torch.equal(twin(x), flow(x))
    before = copy.deepcopy(flow.state_dict())
    svi.step()  # and training goes on
    assert all((value != before[key]).any() for key, value in flow.named_parameters())
