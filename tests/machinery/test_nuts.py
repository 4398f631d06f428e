"""NUTS through a flow, by TransformReparam (a flow as prior) and by NeuTraReparam (a flow as guide): the log-joint that
it follows is the right one, and a function of the point alone."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer import MCMC, NUTS
from pyro.infer.reparam import NeuTraReparam, TransformReparam

from pyro_gflows import EquivariantFlow, InvariantNormal, SitesAction, VectorAction
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.numerics import RouletteLogDet
from pyro_gflows.testing import randomize_
from pyro_gflows.transforms import GActNorm, g_coupling, g_residual
from tests.machinery.models import DATA, AutoCase, log_joint, mixture

PLANE = VectorAction.plane("D4", copies=2)
LAYERS = {
    "coupling": lambda: g_coupling(PLANE, width=2),
    "residual, fast to sample": lambda: g_residual(PLANE, fast="sample"),
    "residual, fast to score": lambda: g_residual(PLANE),
    # random in training, and a frozen chain of NUTS if it were so here
    "roulette": lambda: g_residual(PLANE, fast="sample", log_det=RouletteLogDet()),
}
X = torch.tensor(2.0, dtype=torch.float64)


def flow_of(layers):
    flow = EquivariantFlow(InvariantNormal(PLANE), [LAYERS[layers](), GActNorm(PLANE)])
    return randomize_(flow.double(), scale=0.2).eval().requires_grad_(False)


def model_with(flow):
    def model():
        z = pyro.sample("z", flow.dist)
        pyro.sample("x", dist.Normal(z.norm(dim=-1), 0.5), obs=X)

    return poutine.reparam(model, config={"z": TransformReparam()})


def potential(model, site, value):
    return poutine.trace(poutine.condition(model, {site: value})).get_trace().log_prob_sum()


@pytest.mark.parametrize("layers", LAYERS)
def test_a_flow_prior_seen_from_its_base(layers):
    """Point by point: the base's density, and the likelihood at the image. No log-det, so nothing random either."""
    flow = flow_of(layers)
    model = model_with(flow)
    u = flow.base.sample()
    z = flow.transform(u.clone())
    expected = flow.base.log_prob(u) + dist.Normal(z.norm(dim=-1), 0.5).log_prob(X)
    for seed in range(2):
        torch.manual_seed(seed)
        torch.testing.assert_close(potential(model, "z_base", u), expected, rtol=1e-9, atol=1e-9)
    assert torch.equal(potential(model, "z_base", u), potential(model, "z_base", u))


@pytest.mark.long
@pytest.mark.parametrize("layers", ["coupling", "residual, fast to score"])
def test_nuts_with_a_flow_prior(layers):
    torch.manual_seed(1)
    kernel = NUTS(model_with(flow_of(layers)), step_size=0.3, adapt_step_size=False, max_tree_depth=3)
    mcmc = MCMC(kernel, num_samples=6, warmup_steps=0, disable_progbar=True)
    mcmc.run()
    draws = mcmc.get_samples()
    assert list(draws) == ["z_base"] and len(draws["z_base"].unique(dim=0)) > 3
    assert mcmc.diagnostics()["divergences"]["chain 0"] == []


@pytest.mark.parametrize("layers", LAYERS)
def test_a_flow_prior_seen_from_outside(layers):
    """Without reparameterization: the flow's own log-det is in the score, the same number every time."""
    flow = flow_of(layers)

    def model():
        z = pyro.sample("z", flow.dist)
        pyro.sample("x", dist.Normal(z.norm(dim=-1), 0.5), obs=X)

    z = flow.dist.sample().clone()
    values = []
    for seed in range(2):
        torch.manual_seed(seed)
        values.append(potential(model, "z", z))
    assert torch.equal(*values)
    torch.testing.assert_close(values[0], flow(z) + dist.Normal(z.norm(dim=-1), 0.5).log_prob(X))


def test_neutra_coordinates():
    """The log-joint of the warped model is that of the model, plus the flow's log-det and those of the supports."""
    case = AutoCase(mixture)
    guide = case.guide.eval().requires_grad_(False)
    warped = NeuTraReparam(guide).reparam(mixture)

    def warped_joint(u):
        return poutine.trace(poutine.condition(warped, {"scale_shared_latent": u})).get_trace(DATA).log_prob_sum()

    for u in torch.randn(3, 4, dtype=torch.float64):
        z, ladj = guide.flow.transform.call_and_ladj(u)
        expected = log_joint({"scale": z[:1].exp(), "means": z[None, 1:]})[0] + z[0] + ladj
        torch.testing.assert_close(warped_joint(u), expected, rtol=1e-9, atol=1e-9)
        assert torch.equal(warped_joint(u), warped_joint(u))


@pytest.mark.long
def test_nuts_in_neutra_coordinates_of_the_exact_posterior():
    """For an exact guide, NUTS samples independent standard normal variables."""
    rows = VectorAction.rows("S3")
    flow = randomize_(EquivariantFlow(InvariantNormal(rows), [GActNorm(rows)]).double(), scale=0.5)

    def model():
        pyro.sample("rows", flow.dist)

    guide = AutoGFlow(model, SitesAction("S3", {"rows": rows}), transforms=lambda action: [GActNorm(action)])
    guide.flow.load_state_dict(flow.state_dict())
    guide.eval().requires_grad_(False)
    flow.eval().requires_grad_(False)
    neutra = NeuTraReparam(guide)
    warped = neutra.reparam(model)
    for u in torch.randn(3, 3, dtype=torch.float64):
        standard = dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).log_prob(u).sum()
        torch.testing.assert_close(potential(warped, "rows_shared_latent", u), standard, rtol=0, atol=1e-9)
    kernel = NUTS(warped, step_size=0.8, adapt_step_size=False)
    mcmc = MCMC(kernel, num_samples=60, warmup_steps=0, disable_progbar=True)
    mcmc.run()
    draws = mcmc.get_samples()["rows_shared_latent"]
    rows = neutra.transform_sample(draws)["rows"]
    torch.testing.assert_close(rows, flow.transform(draws))
    assert abs(draws.square().mean() - 1) < 0.6 and mcmc.diagnostics()["divergences"]["chain 0"] == []
