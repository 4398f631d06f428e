"""Every ELBO of Pyro has the value and the gradient that the draws of the guide give, before and after a step."""

import pytest
import torch
from pyro.infer import (
    RenyiELBO,
    Trace_ELBO,
    TraceEnum_ELBO,
    TraceGraph_ELBO,
    TraceMeanField_ELBO,
)

from tests.machinery.models import CASES, DATA, backward, labeled_mixture, loss_and_gradient, mixture, nudge

ALPHA = 0.5
PARTICLES = 5


def mean_bound(log_weights):
    return -log_weights.mean()


def renyi_bound(log_weights):
    powers = (1 - ALPHA) * log_weights
    return -(powers.logsumexp(0) - torch.tensor(len(powers)).log()) / (1 - ALPHA)


ELBOS = {
    "Trace": (Trace_ELBO, mixture, mean_bound),
    "TraceMeanField": (TraceMeanField_ELBO, mixture, mean_bound),
    "TraceGraph": (TraceGraph_ELBO, mixture, mean_bound),
    "TraceEnum": (TraceEnum_ELBO, labeled_mixture, mean_bound),
    "Renyi": (lambda **options: RenyiELBO(alpha=ALPHA, **options), mixture, renyi_bound),
}


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", ELBOS)
def test_value_and_gradient(kind, name):
    elbo, model, bound = ELBOS[name]
    case = CASES[kind](model)
    estimate = elbo(num_particles=PARTICLES, vectorize_particles=True, max_plate_nesting=1)
    for seed in range(2):
        received = loss_and_gradient(lambda: estimate.loss_and_grads(model, case.guide, DATA), case.parameters, seed)
        expected = loss_and_gradient(lambda: backward(bound(case.log_weights(PARTICLES))), case.parameters, seed)
        torch.testing.assert_close(received, expected, rtol=1e-7, atol=1e-7)
        assert expected[1].abs().max() > 0.1
        nudge(case.parameters)


@pytest.mark.parametrize("kind", CASES)
@pytest.mark.parametrize("name", ELBOS)
@pytest.mark.long
def test_particles_side_by_side_are_those_of_a_loop(kind, name):
    """The distributions agree, although the loop draws other values."""
    elbo, model, _ = ELBOS[name]
    case = CASES[kind](model)
    blocks, size = 8, 3
    means = []
    with torch.no_grad():
        for vectorized in (True, False):
            estimate = elbo(num_particles=size, vectorize_particles=vectorized, max_plate_nesting=1)
            means.append(torch.tensor([estimate.loss(model, case.guide, DATA) for _ in range(blocks)]))
    difference = means[0].mean() - means[1].mean()
    error = ((means[0].var() + means[1].var()) / blocks).sqrt()
    assert abs(difference) < 4 * error
