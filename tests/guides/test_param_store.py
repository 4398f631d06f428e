"""Guides of one class share their names in Pyro's parameter store: each is trained all the same."""

import contextlib
import warnings

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO
from pyro.infer.autoguide import AutoGuideList
from pyro.poutine import block

from pyro_gflows import SitesAction, VectorAction
from pyro_gflows.flows import OrbitFlow
from pyro_gflows.guides import AutoGFlow

SWAP = SitesAction("S2", {"means": VectorAction.rows("S2")})


def model():
    means = pyro.sample("means", dist.Normal(torch.zeros(2), 5.0).to_event(1))
    pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=torch.tensor(2.0))


def two_groups():
    model()
    pyro.sample("other", dist.Normal(torch.zeros(3), 1.0).to_event(1))


def weights(guide):
    return [parameter.detach().clone() for parameter in guide.parameters()]


def changed(guide, before):
    return [not torch.equal(old, new) for old, new in zip(before, guide.parameters(), strict=True)]


def train(guide, steps=3):
    svi = SVI(model, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    for _ in range(steps):
        svi.step()


def says_so(expected=True):
    return pytest.warns(UserWarning, match="held other weights") if expected else contextlib.nullcontext()


@pytest.mark.long
@pytest.mark.parametrize("options", [{}, {"base": OrbitFlow}], ids=["normal", "orbit"])
def test_a_second_guide_is_trained_and_the_first_is_left_alone(options):
    first, second = (AutoGFlow(model, SWAP, **options) for _ in range(2))
    train(first)
    of_first, of_second = weights(first), weights(second)
    with says_so():
        train(second)
    assert sum(changed(second, of_second)) > 0.5 * len(of_second)
    assert not any(changed(first, of_first))
    of_second = weights(second)
    with says_so():
        train(first)
    assert any(changed(first, of_first)) and not any(changed(second, of_second))


@pytest.mark.long
def test_a_guide_of_another_model_too():
    train(AutoGFlow(model, SWAP))
    other = AutoGFlow(two_groups, SWAP)
    before = weights(other)
    with says_so():
        SVI(two_groups, other, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO()).step()
    assert any(changed(other, before))


@pytest.mark.long
def test_guides_in_a_list():
    def listed():
        guides = AutoGuideList(two_groups)
        guides.append(AutoGFlow(block(two_groups, hide=["other"]), SWAP, check="skip"))
        guides.append(pyro.infer.autoguide.AutoNormal(block(two_groups, expose=["other"])))
        return guides

    first, second = listed(), listed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        first()
        before = weights(second[0])
        svi = SVI(two_groups, second, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
        svi.step()
    assert any(changed(second[0], before))


@pytest.mark.long
def test_a_loaded_store_is_taken_as_the_warning_says(tmp_path):
    first = AutoGFlow(model, SWAP)
    train(first)
    pyro.get_param_store().save(tmp_path / "store")
    for take in (True, False):
        pyro.clear_param_store()
        second = AutoGFlow(model, SWAP)
        pyro.get_param_store().load(tmp_path / "store")
        if take:
            pyro.module("AutoGFlow.flow", second.flow, update_module_params=True)
        with says_so(not take):
            second()
        z = torch.randn(3, 2)
        assert torch.equal(first.flow(z), second.flow(z)) is take
        before = weights(second)
        train(second)
        assert any(changed(second, before))


@pytest.mark.long
def test_nothing_is_said_where_nothing_is_lost():
    guide = AutoGFlow(model, SWAP)
    train(guide)
    twin = AutoGFlow(model, SWAP)
    twin.load_state_dict(guide.state_dict())
    train(twin)
    pyro.clear_param_store()
    train(AutoGFlow(model, SWAP))
