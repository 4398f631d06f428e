"""AutoGuideList: an AutoGFlow beside another automatic guide."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import SVI, Predictive, Trace_ELBO, TraceGraph_ELBO
from pyro.infer.autoguide import AutoGuideList, AutoNormal

from pyro_gflows.guides import AutoGFlow
from pyro_gflows.testing import randomize_
from tests.machinery.models import DATA, LABELS, log_joint, loss_and_gradient, mixture, small


def make_guide():
    """A flow for the means, which the group permutes, and a normal distribution for the scale, which is invariant."""
    guide = AutoGuideList(mixture)
    part = poutine.block(mixture, hide=["scale"])
    flow = AutoGFlow(part, LABELS, args=(DATA,), transforms=small, check="skip")
    randomize_(flow.flow, scale=0.1)
    guide.append(AutoNormal(poutine.block(mixture, expose=["scale"])))
    guide.append(flow)
    guide(DATA)  # AutoNormal makes its parameters now
    return guide.double()


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceGraph_ELBO])
def test_value_is_that_of_its_draws(elbo):
    guide = make_guide()
    parameters = list(guide.parameters())
    estimate = elbo(num_particles=1, max_plate_nesting=1)
    for seed in range(3):
        loss, gradient = loss_and_gradient(lambda: estimate.loss_and_grads(mixture, guide, DATA), parameters, seed)
        torch.manual_seed(seed)
        trace = poutine.trace(guide).get_trace(DATA)
        values = {name: trace.nodes[name]["value"][None] for name in ("means", "scale")}
        flow = guide[1].flow
        location, scale = guide[0].locs.scale, guide[0].scales.scale
        log_scale = values["scale"].log()
        log_q = flow(values["means"].clone()) + torch.distributions.Normal(location, scale).log_prob(log_scale)
        torch.testing.assert_close(loss, -(log_joint(values) - (log_q - log_scale)).detach()[0], rtol=1e-7, atol=1e-7)
        assert gradient.abs().max() > 0.1


@pytest.mark.long
def test_all_parts_train_and_predict():
    guide = make_guide()
    before = {name: value.detach().clone() for name, value in guide.named_parameters()}
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(mixture, guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [svi.step(DATA) for _ in range(40)]
    assert sum(losses[-5:]) < sum(losses[:5])
    assert not [n for n, value in guide.named_parameters() if value.numel() and torch.equal(value, before[n])]
    draws = Predictive(mixture, guide=guide, num_samples=7, return_sites=["means", "scale"])(DATA)
    assert draws["means"].unique().numel() == 21 and draws["scale"].unique().numel() == 7
