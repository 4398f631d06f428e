"""NUTS in the coordinates that an invariant guide has learnt."""

import pyro
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS, SVI, Trace_ELBO
from pyro.infer.reparam import NeuTraReparam

from pyro_gflows.distributions import OrbitMixture
from pyro_gflows.guides import AutoGFlow, guide_transforms
from tests.guides.models import LABELS, mixture, mixture_data


@pytest.mark.long
def test_neutra_maps_draws_back_to_the_sites():
    data = mixture_data()
    guide = AutoGFlow(
        mixture, LABELS, args=(data,), transforms=lambda action: guide_transforms(action, steps=2, width=4)
    )
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(mixture, guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    for _ in range(30):
        svi.step(data)
    neutra = NeuTraReparam(guide.eval().requires_grad_(False))
    mcmc = MCMC(NUTS(neutra.reparam(mixture), max_tree_depth=3), num_samples=5, warmup_steps=5, disable_progbar=True)
    mcmc.run(data)
    draws = neutra.transform_sample(mcmc.get_samples()["weights_shared_latent"])
    assert draws["means"].shape == (5, 3) and len(torch.unique(draws["means"])) > 3
    torch.testing.assert_close(draws["weights"].sum(-1), torch.ones(5))


@pytest.mark.long
def test_the_model_in_neutra_coordinates_is_invariant():
    """Base and model are invariant, so what NUTS explores is too (contract 7: and it scores the same twice)."""
    data = mixture_data(torch.float64)
    guide = AutoGFlow(mixture, LABELS, args=(data,), transforms=lambda a: guide_transforms(a, steps=2, width=4))
    warped = NeuTraReparam(guide.eval()).reparam(mixture)
    z = torch.randn(8, dtype=torch.float64)

    def log_joint(z):
        return poutine.trace(poutine.condition(warped, {"weights_shared_latent": z})).get_trace(data).log_prob_sum()

    for element in guide.vector_action.elements():
        torch.testing.assert_close(log_joint(guide.vector_action.act(element, z)), log_joint(z), rtol=0, atol=1e-9)
    assert torch.equal(log_joint(z), log_joint(z))


@pytest.mark.long
def test_its_gradient_is_that_of_the_log_joint():
    """What NUTS follows: the log-det's part of it goes through the flow."""
    data = mixture_data(torch.float64)
    guide = AutoGFlow(mixture, LABELS, args=(data,), transforms=lambda a: guide_transforms(a, steps=2, width=4))
    warped = NeuTraReparam(guide.eval()).reparam(mixture)

    def log_joint(z):
        return poutine.trace(poutine.condition(warped, {"weights_shared_latent": z})).get_trace(data).log_prob_sum()

    z = torch.randn(8, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_joint, z, eps=1e-5, atol=1e-4, check_undefined_grad=False)


@pytest.mark.long
def test_a_mixture_of_orbits_as_base():
    data = mixture_data()
    guide = AutoGFlow(
        mixture,
        LABELS,
        args=(data,),
        base=OrbitMixture,
        transforms=lambda action: guide_transforms(action, steps=1, width=4),
    )
    elbo = Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=1)
    svi = SVI(mixture, guide, pyro.optim.Adam({"lr": 1e-2}), elbo)
    losses = [svi.step(data) for _ in range(40)]
    assert sum(losses[-10:]) < sum(losses[:10]) < 10 * 50  # it starts at a mode; from a random point, above 100 a step
    z = guide.flow.dist.sample((20,)).clone()
    orbit = guide.flow(guide.vector_action.act_all(z))
    torch.testing.assert_close(orbit, orbit[:1].expand_as(orbit), rtol=0, atol=5e-5)
