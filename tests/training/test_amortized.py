"""An amortized posterior of images, encoder included: q(g z | g x) = q(z | x), and importance-weighted bounds."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro.infer import SVI, RenyiELBO, Trace_ELBO

from pyro_gflows import (
    EquivariantFlow,
    GAffine,
    ImageAction,
    InvariantNormal,
    VectorAction,
    g_autoregressive,
    g_coupling,
)
from pyro_gflows.nn import EquivariantMLP
from pyro_gflows.testing import assert_conditionally_invariant

PIXELS = ImageAction("C4", size=4).as_vector()
LATENT, FEATURES = VectorAction.regular("C4", copies=2), VectorAction.regular("C4", copies=3)
PARTICLES = {"vectorize_particles": True, "max_plate_nesting": 1}


class VAE(torch.nn.Module):
    def __init__(self, family):
        super().__init__()
        torch.manual_seed(0)
        self.encoder = EquivariantMLP(PIXELS, FEATURES, width=4, depth=1)
        self.decoder = EquivariantMLP(LATENT, PIXELS, width=4, depth=1)
        layers = [GAffine(LATENT, context_action=FEATURES, width=4)]
        if family is not None:
            layers.append(family(LATENT, context_action=FEATURES, width=2, depth=1))
        self.flow = EquivariantFlow(InvariantNormal(LATENT), layers)

    def model(self, x):
        pyro.module("vae", self)
        with pyro.plate("images", len(x)):
            z = pyro.sample("z", InvariantNormal(LATENT))
            pyro.sample("x", dist.Bernoulli(logits=self.decoder(z)).to_event(1), obs=x)

    def guide(self, x):
        pyro.module("vae", self)
        with pyro.plate("images", len(x)):
            pyro.sample("z", self.flow.condition(self.encoder(x)))

    def log_posterior(self, z, x):
        return self.flow(z, self.encoder(x))


def inverse_autoregressive(action, **kwargs):
    return g_autoregressive(action, fast="sample", **kwargs)


def images(count):
    """Bars at the top, in all four poses."""
    bar = torch.zeros(4, 4)
    bar[0] = 1.0
    turns = torch.randint(4, (count,), generator=torch.Generator().manual_seed(0))
    return PIXELS.act_each(turns, bar.flatten().expand(count, 16))


@pytest.mark.long
@pytest.mark.parametrize("family", [None, inverse_autoregressive, g_coupling])
def test_the_posterior_turns_with_the_picture_before_and_after_training(family):
    pyro.clear_param_store()
    vae, x = VAE(family), images(24)
    svi = SVI(vae.model, vae.guide, pyro.optim.Adam({"lr": 2e-2}), Trace_ELBO(num_particles=4, **PARTICLES))
    losses = []
    for stage in ("before", "after"):
        z = vae.flow.condition(vae.encoder(x)).sample()
        assert_conditionally_invariant(vae.log_posterior, LATENT, PIXELS, z, x, tol=1e-4)
        if stage == "before":
            losses = [svi.step(x) for _ in range(40)]
    assert sum(losses[-5:]) < 0.75 * sum(losses[:5])


@pytest.mark.long
def test_the_importance_weighted_bound_lies_between_the_elbo_and_the_evidence():
    """The evidence by quadrature over draws of the prior."""
    pyro.clear_param_store()
    vae, x = VAE(inverse_autoregressive).double().eval(), images(6).double()
    with torch.no_grad():
        z = InvariantNormal(LATENT).sample((200_000,)).double()
        scores = dist.Bernoulli(logits=vae.decoder(z)[:, None]).log_prob(x).sum(-1)
        evidence = float((scores.logsumexp(0) - torch.tensor(200_000.0).log()).sum())
        elbo = -Trace_ELBO(num_particles=2000, **PARTICLES).loss(vae.model, vae.guide, x)
        weighted = -RenyiELBO(alpha=0, num_particles=5000, **PARTICLES).loss(vae.model, vae.guide, x)
    assert elbo < weighted - 0.05
    assert weighted == pytest.approx(evidence, abs=0.2)
