"""ReweightedWakeSleep: model draws and constant guide draws are scored by true inverses."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, ReweightedWakeSleep

from pyro_gflows import EquivariantFlow, InvariantNormal, VectorAction
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GActNorm, g_coupling, g_residual
from tests.machinery.models import DATA, AutoCase, backward, log_joint, loss_and_gradient, mixture, nudge

PLANE = VectorAction.plane("D4", copies=2)
PARTICLES = 4


def points(x, observations=None):
    """A latent event for each row; what a guide without data learns in its sleep is the prior."""
    with pyro.plate("rows", len(x)):
        z = pyro.sample("z", prior())
        pyro.sample("x", dist.Normal(z.norm(dim=-1), 0.5), obs=x, infer={"was_observed": True})


def prior():
    return dist.Normal(torch.zeros(4, dtype=torch.float64), 1.5).to_event(1)


X = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
LAYERS = {
    "coupling": lambda: [g_coupling(PLANE, width=2), GActNorm(PLANE)],
    "fast to score": lambda: [g_residual(PLANE), GActNorm(PLANE)],
    "fast to sample": lambda: [g_residual(PLANE, fast="sample"), GActNorm(PLANE)],
}


def flow_and_guide(layers):
    flow = randomize_(EquivariantFlow(InvariantNormal(PLANE), LAYERS[layers]()).double(), scale=0.2)

    def guide(x, observations=None):
        pyro.module("flow", flow)
        with pyro.plate("rows", len(x)):
            pyro.sample("z", flow.dist)

    return flow, guide


def sleep(flow):
    z = prior().sample((PARTICLES, len(X)))
    torch.randn(PARTICLES, len(X), dtype=torch.float64)  # the model draws x as well
    return -flow(z).sum() / PARTICLES


def wake(flow):
    """Both losses of the waking phase; the weights multiply the gradient of the score at constant draws."""
    with torch.no_grad():
        z = flow.dist.sample((PARTICLES, len(X)))
    log_q = flow(z.clone()).sum(-1)
    joint = (prior().log_prob(z) + dist.Normal(z.norm(dim=-1), 0.5).log_prob(X)).sum(-1)
    return _wake(joint, log_q)


def _wake(joint, log_q):
    log_weights = joint - log_q.detach()
    total = log_weights.logsumexp(0)
    model_loss = -(total - torch.tensor(len(log_weights), dtype=total.dtype).log())
    return model_loss, -((log_weights - total).exp() * log_q).sum()


@pytest.mark.parametrize("vectorized", [True, False], ids=["vectorized", "loop"])
@pytest.mark.parametrize("layers", LAYERS)
def test_sleeping_phase(layers, vectorized):
    """The guide's score of model draws."""
    flow, guide = flow_and_guide(layers)
    parameters = list(flow.parameters())
    rws = ReweightedWakeSleep(
        num_particles=PARTICLES,
        insomnia=0.0,
        model_has_params=False,
        vectorize_particles=vectorized,
        max_plate_nesting=2 if vectorized else 1,
    )
    for seed in range(2):
        nudge(parameters)
        received = loss_and_gradient(lambda: rws.loss_and_grads(points, guide, X)[1], parameters, seed)
        if vectorized:
            expected = loss_and_gradient(lambda: backward(sleep(flow)), parameters, seed)
            torch.testing.assert_close(received, expected, rtol=1e-8, atol=1e-8)
        assert received[0].isfinite() and received[1].abs().max() > 0.1


@pytest.mark.parametrize("layers", LAYERS)
def test_waking_phase(layers):
    """The weighted score of constant draws: their inverses are differentiated, the draws are not."""
    flow, guide = flow_and_guide(layers)
    parameters = list(flow.parameters())
    rws = ReweightedWakeSleep(num_particles=PARTICLES, insomnia=1.0, max_plate_nesting=1)
    for seed in range(2):
        nudge(parameters)
        received = loss_and_gradient(lambda: rws.loss_and_grads(points, guide, X)[1], parameters, seed)
        expected = loss_and_gradient(lambda: backward(wake(flow)[1]), parameters, seed)
        torch.testing.assert_close(received, expected, rtol=1e-7, atol=1e-7)
        assert expected[1].abs().max() > 0.1


def test_waking_phase_of_an_automatic_guide():
    """Constrained sites included: the log-det of a constant value has no gradient."""
    case = AutoCase(mixture)

    def expected_loss():
        with torch.no_grad():
            z = case.guide.flow.dist.sample((PARTICLES,))
        log_q = case.guide.flow(z.clone()) - z[:, 0]
        return _wake(log_joint({"scale": z[:, 0].exp(), "means": z[:, 1:]}), log_q)[1]

    rws = ReweightedWakeSleep(num_particles=PARTICLES, insomnia=1.0, max_plate_nesting=1)
    for seed in range(2):
        received = loss_and_gradient(lambda: rws.loss_and_grads(mixture, case.guide, DATA)[1], case.parameters, seed)
        expected = loss_and_gradient(lambda: backward(expected_loss()), case.parameters, seed)
        torch.testing.assert_close(received, expected, rtol=1e-7, atol=1e-7)
        nudge(case.parameters)


@pytest.mark.long
def test_it_trains():
    flow, guide = flow_and_guide("coupling")
    rws = ReweightedWakeSleep(num_particles=64, insomnia=0.0, model_has_params=False, max_plate_nesting=2)
    svi = SVI(points, guide, pyro.optim.Adam({"lr": 0.1}), rws)
    for _ in range(90):
        svi.step(X)
    z = prior().sample((2000,))
    assert (prior().log_prob(z) - flow(z)).mean() < 0.05
