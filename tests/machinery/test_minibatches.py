"""Stochastic gradients from minibatches of a plate are unbiased: exactly so for common random draws."""

import itertools

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO, TraceGraph_ELBO, TraceMeanField_ELBO

from pyro_gflows import SitesAction, VectorAction
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.testing import randomize_
from tests.machinery.models import DATA, LABELS, components, globals_, loss_and_gradient, small

SIZE = 2
BATCHES = [torch.tensor(pair) for pair in itertools.combinations(range(len(DATA)), SIZE)]


def model(index=None):
    """A mixture that sees the rows of ``index``, scaled to stand for all of them."""
    means, scale = globals_()
    with pyro.plate("data", len(DATA), subsample=index) as rows:
        pyro.sample("x", components(means, scale), obs=DATA[rows])


def random_model():
    means, scale = globals_()
    with pyro.plate("data", len(DATA), subsample_size=SIZE) as rows:
        pyro.sample("x", components(means, scale), obs=DATA[rows])


def make_guide(target):
    guide = AutoGFlow(target, LABELS, transforms=small)
    randomize_(guide.flow, scale=0.1)
    return guide


@pytest.mark.parametrize("elbo", [Trace_ELBO, TraceMeanField_ELBO, TraceGraph_ELBO])
@pytest.mark.long
def test_the_mean_over_all_minibatches_is_the_full_gradient(elbo):
    guide = make_guide(model)
    parameters = list(guide.parameters())
    estimate = elbo(num_particles=2, vectorize_particles=True, max_plate_nesting=1)

    def one(index):
        return loss_and_gradient(lambda: estimate.loss_and_grads(model, guide, index), parameters, seed=0)

    losses, gradients = zip(*(one(index) for index in BATCHES), strict=True)
    full_loss, full_gradient = one(None)
    torch.testing.assert_close(torch.stack(losses).mean(), full_loss, rtol=1e-10, atol=1e-10)
    torch.testing.assert_close(torch.stack(gradients).mean(0), full_gradient, rtol=1e-9, atol=1e-9)
    assert (gradients[0] - full_gradient).abs().max() > 0.1


@pytest.mark.long
def test_random_minibatches_train():
    guide = make_guide(random_model)
    elbo = Trace_ELBO(num_particles=8, vectorize_particles=True, max_plate_nesting=1)
    full = Trace_ELBO(num_particles=500, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(random_model, guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    before = full.loss(model, guide)
    for _ in range(60):
        svi.step()
    assert full.loss(model, guide) < before - 1


def test_the_guide_may_have_a_plate_too():
    """A plate of components that the group permutes, and a minibatch of the data."""
    rows = VectorAction.rows("S3")

    def components_in_a_plate():
        with pyro.plate("components", 3):
            means = pyro.sample("means", dist.Normal(torch.zeros((), dtype=torch.float64), 2.0))
        with pyro.plate("data", len(DATA), subsample_size=SIZE) as index:
            pyro.sample("x", components(means, torch.ones((), dtype=torch.float64)), obs=DATA[index])

    guide = AutoGFlow(components_in_a_plate, SitesAction("S3", {"means": rows}), transforms=small, check="raise")
    svi = SVI(components_in_a_plate, guide, pyro.optim.Adam({"lr": 1e-2}), Trace_ELBO())
    assert all(torch.isfinite(torch.tensor(svi.step())) for _ in range(3))
