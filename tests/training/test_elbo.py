"""ELBO: the loss, the gradients and the trained weights of SVI, for whatever model and guide hold their weights in."""

import copy

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroParam
from torch import nn
from torch.distributions import constraints

from pyro_gflows import SitesAction, VectorAction
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.training import ELBO
from tests.small_flows import points, small_flow

X = torch.linspace(-1.0, 3.0, 20, dtype=torch.float64)
ROWS = len(X)


def model(x=X):
    mean = pyro.sample("mean", dist.Normal(x.new_zeros(()), 5.0))
    with pyro.plate("data", ROWS, subsample_size=len(x)):
        pyro.sample("x", dist.Normal(mean, 1.0), obs=x)


def guide(x=X):
    """Its weights are in the parameter store alone; one of them is positive, and one has a dot in its name."""
    loc = pyro.param("guide.loc", torch.tensor(0.3, dtype=torch.float64))
    scale = pyro.param("scale", torch.tensor(0.7, dtype=torch.float64), constraint=constraints.positive)
    pyro.sample("mean", dist.Normal(loc, scale))


class ModuleGuide(PyroModule):
    def __init__(self):
        super().__init__()
        self.loc = nn.Parameter(torch.tensor(0.3, dtype=torch.float64))
        self.scale = PyroParam(torch.tensor(0.7, dtype=torch.float64), constraint=constraints.positive)

    def forward(self, x=X):
        pyro.sample("mean", dist.Normal(self.loc, self.scale))


def flow_model(flow):
    """A flow that a function reaches, and pyro.module registers."""

    def of_flow(x):
        pyro.module("flow", flow)
        with pyro.plate("data", ROWS, subsample_size=len(x)):
            pyro.sample("x", flow.dist, obs=x)

    return of_flow


def pair_of_means(x=X):
    with pyro.plate("components", 2):
        means = pyro.sample("means", dist.Normal(x.new_zeros(()), 5.0))
    with pyro.plate("data", ROWS, subsample_size=len(x)):
        pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=x)


def auto_gflow():
    with pyro.validation_enabled(False):
        return AutoGFlow(pair_of_means, SitesAction("S2", {"means": VectorAction.rows("S2")}), args=(X,)).double()


# what a user passes to SVI, made anew: model, guide, arguments
PAIRS = {
    "functions": lambda: (model, guide, (X,)),
    "module": lambda: (model, ModuleGuide(), (X[:7],)),
    "lazy guide": lambda: (model, AutoNormal(model), (X,)),
    "flow in a function": lambda: (flow_model(small_flow()), lambda x: None, (points(ROWS),)),
    "invariant guide": lambda: (pair_of_means, auto_gflow(), (X,)),
    "no arguments": lambda: (model, guide, ()),
}


@pytest.mark.long
@pytest.mark.parametrize("pair", PAIRS)
def test_the_loss_and_the_trained_weights_are_those_of_svi(pair):
    pyro.set_rng_seed(1)
    own_model, own_guide, args = PAIRS[pair]()
    svi = SVI(own_model, own_guide, pyro.optim.Adam({"lr": 0.03}), Trace_ELBO(num_particles=2))
    if isinstance(own_guide, AutoNormal):
        own_guide(*args)
    pyro.set_rng_seed(2)
    expected = [svi.step(*args) for _ in range(5)]
    trained = {name: value.detach().clone() for name, value in pyro.get_param_store().named_parameters()}
    pyro.clear_param_store()

    pyro.set_rng_seed(1)
    own_model, own_guide, args = PAIRS[pair]()
    state = torch.get_rng_state()
    objective = ELBO(own_model, own_guide, Trace_ELBO(num_particles=2), args=args)
    assert torch.equal(torch.get_rng_state(), state)
    optimizer = torch.optim.Adam(objective.parameters(), lr=0.03, betas=(0.9, 0.999))
    pyro.set_rng_seed(2)
    losses = []
    for _ in range(5):
        optimizer.zero_grad()
        loss = objective(args)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(expected, rel=1e-12)
    found = sorted(value.flatten().tolist() for value in objective.parameters())
    wanted = sorted(value.flatten().tolist() for value in trained.values())
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert one == pytest.approx(other, rel=1e-12)


def test_trained_parameters_of_functions_are_in_the_store_and_start_from_it():
    pyro.param("guide.loc", torch.tensor(-4.0, dtype=torch.float64))
    objective = ELBO(model, guide, args=(X,))
    assert {name for name, _ in objective.named_parameters()} == {"module.named.guide/loc", "module.named.scale"}
    assert pyro.param("guide.loc").item() == -4.0
    objective().backward()
    with torch.no_grad():
        for weight in objective.parameters():
            assert weight.grad.abs() > 0
            weight -= 1.0
    assert pyro.param("guide.loc").item() == -5.0
    assert pyro.param("scale").item() == pytest.approx(0.7 / torch.tensor(1.0).exp().item())
    assert sorted(pyro.get_param_store()) == ["guide.loc", "scale"]


def test_modules_are_trained_whatever_the_store_holds_under_their_names():
    other = ModuleGuide()
    other(X)
    assert sorted(pyro.get_param_store()) == ["loc", "scale"]  # of the other guide, under the same names
    own = ModuleGuide()
    objective = ELBO(model, own, args=(X,))
    before = dict(pyro.get_param_store().named_parameters())
    objective(X).backward()
    assert own.loc.grad is not None and own.scale_unconstrained.grad is not None and other.loc.grad is None
    assert dict(pyro.get_param_store().named_parameters()) == before


def test_frozen_weights_stay_frozen_and_copies_are_apart():
    own = ModuleGuide()
    own.loc.requires_grad_(False)
    objective = ELBO(model, own, args=(X,))
    objective((X,)).backward()
    assert not own.loc.requires_grad and own.scale_unconstrained.grad is not None
    functions = ELBO(model, guide, args=(X,))
    twin = copy.deepcopy(functions)
    with torch.no_grad():
        for weight in twin.parameters():
            weight += 1.0
    pyro.set_rng_seed(0)
    first = functions((X,)).item()
    pyro.set_rng_seed(0)
    assert twin((X,)).item() != first
    twin((X,)).backward()
    assert all(weight.grad is None for weight in functions.parameters())
    twin.load_state_dict(functions.state_dict())
    pyro.set_rng_seed(0)
    assert twin((X,)).item() == first


def test_minibatches_are_unbiased_and_shares_add_up():
    """Parts of the rows, at the same draw of the guide, have the loss of all rows as their mean."""
    objective = ELBO(model, guide, args=(X,))

    def loss(x):
        pyro.set_rng_seed(3)
        return objective((x,)).item()

    assert sum(map(loss, X.split(5))) / 4 == pytest.approx(loss(X), rel=1e-12)
    uneven = [loss(part) * len(part) / ROWS for part in X.split([3, 8, 9])]
    assert sum(uneven) == pytest.approx(loss(X), rel=1e-12)
    value, count = objective.tally((X,))
    assert count == 1 and not value.requires_grad


def test_mistakes_are_named():
    with pytest.raises(TypeError, match="expected an ELBO of pyro.infer .*, got Trace_ELBO"):
        ELBO(model, guide, Trace_ELBO)
    with pytest.raises(ValueError, match=r"expected arguments of the model, got ELBO\(model, guide\) without any"):
        ELBO(model, guide).batch(0)
    with pytest.raises(
        ValueError, match=r"weights that an optimizer has not seen \(by name: \['guide.loc', 'scale'\]\)"
    ):
        ELBO(model, guide)((X,))
    with pytest.raises(ValueError, match="weights that an optimizer has not seen"):
        ELBO(model, AutoNormal(model))((X,))
    whole = ModuleGuide()
    assert ELBO(model, whole)((X,)).requires_grad  # all weights are there before the first call
    assert ELBO(model, guide, args=(X,)).batch(4)[0] is X
