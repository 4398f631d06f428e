"""The log-joint of many latent vectors at once, against the model's own trace of each."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from pyro.infer.mcmc.util import initialize_model
from pyro.ops.indexing import Vindex
from torch.distributions import biject_to

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.guides import AutoGFlow, guide_transforms
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy
from tests.guides.models import FACTORS, LABELS, factor_data, factor_model, mixture, mixture_data

PAIR = SitesAction("S3", {"means": VectorAction.rows("S3")})


def plated(x):
    """Sites in plates, one inside the other."""
    scale = pyro.sample("scale", dist.Gamma(2.0, 1.0))
    with pyro.plate("components", 3):
        means = pyro.sample("means", dist.Normal(0.0, 2.0))
    total = means.square().sum(-1, keepdim=True)
    with pyro.plate("columns", 2, dim=-2), pyro.plate("rows", len(x), dim=-1):
        pyro.sample("x", dist.Normal(total, scale), obs=x)


@pytest.mark.parametrize(
    ("model", "action", "data"),
    [(mixture, LABELS, mixture_data()), (factor_model, FACTORS, factor_data()), (plated, PAIR, torch.randn(4))],
    ids=["mixture", "factors", "plates"],
)
@pytest.mark.long
def test_each_row_is_the_joint_of_one_trace(model, action, data):
    guide = AutoGFlow(model, action, args=(data,), check="skip")
    u = torch.randn(5, guide.latent_dim)
    expected = []
    for row in u:
        values, log_det = {}, 0.0
        for site, free in guide._unpack_latent(row):
            transform = biject_to(site["fn"].support)
            values[site["name"]] = transform(free)
            log_det = log_det + transform.log_abs_det_jacobian(free, values[site["name"]]).sum()
        expected.append(poutine.trace(poutine.condition(model, values)).get_trace(data).log_prob_sum() + log_det)
    torch.testing.assert_close(guide.log_density(data)(u), torch.stack(expected), rtol=1e-5, atol=1e-4)


@pytest.mark.long
def test_what_cannot_be_run_says_why():
    def hidden(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 5.0).to_event(1))
        with pyro.plate("data", len(x)):
            label = pyro.sample("label", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(means[..., 0] + label, 1.0), obs=x)

    guide = AutoGFlow(poutine.block(hidden, hide=["label"]), PAIR, args=(mixture_data(),), check="skip", joint=hidden)
    with pytest.raises(ValueError, match=r"site 'label' is latent.*joint="):
        guide.log_density(mixture_data())(torch.zeros(2, 3))
    guide = AutoGFlow(mixture, LABELS, args=(mixture_data(),), check="skip")
    with pytest.raises(ValueError, match=r"expected vectors of shape \(rows, 8\), got \(8,\)"):
        guide.log_density(mixture_data())(torch.zeros(8))


@pytest.mark.long
def test_a_hidden_discrete_site_is_noticed_and_a_joint_cures_it():
    def discrete(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 3.0).to_event(1))
        with pyro.plate("data", len(x)):
            which = pyro.sample("which", dist.Categorical(torch.ones(3)))
            pyro.sample("x", dist.Normal(Vindex(means)[..., which], 1.0), obs=x)

    def summed_out(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 3.0).to_event(1))
        with pyro.plate("data", len(x)):
            each = dist.Normal(means, 1.0)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(torch.ones(3)), each), obs=x)

    x = torch.tensor([-2.0, 0.0, 2.0])
    hidden = poutine.block(discrete, hide=["which"])
    with pytest.raises(ValueError, match="changes from run to run.*joint="):
        AutoGFlow(hidden, PAIR, args=(x,), check="skip").log_density(x)
    guide = AutoGFlow(hidden, PAIR, args=(x,), check="raise", joint=summed_out)
    z = torch.tensor([[-2.0, 0.0, 2.0]])
    expected = poutine.trace(poutine.condition(summed_out, {"means": z[0]})).get_trace(x).log_prob_sum()
    torch.testing.assert_close(guide.log_density(x)(z)[0], expected)


def test_a_model_that_mixes_the_rows_is_run_for_each_of_them():
    def mixing(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 3.0).to_event(1))
        pyro.factor("all", -((means - x) ** 2).sum())

    x = torch.tensor([1.0, -2.0, 0.5])
    guide = AutoGFlow(mixing, PAIR, args=(x,), check="skip")
    with pytest.warns(UserWarning, match="does not run inside one additional plate"):
        log_density = guide.log_density(x)
    z = torch.randn(7, 3)
    expected = dist.Normal(0.0, 3.0).log_prob(z).sum(-1) - (z - x).square().sum(-1)
    torch.testing.assert_close(log_density(z), expected)


@pytest.mark.long
def test_minibatches_are_scaled_and_drawn_anew():
    def batched(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 3.0).to_event(1))
        with pyro.plate("data", len(x), subsample_size=2, dim=-1) as rows:
            pyro.sample("x", dist.Normal(means.sum(-1), 1.0), obs=x[rows])

    x = torch.linspace(0, 5, 6)
    energy = AutoGFlow(batched, PAIR, args=(x,), check="skip").log_density(x)
    draws = torch.stack([energy(torch.ones(1, 3))[0] for _ in range(200)])
    whole = dist.Normal(torch.zeros(3), 3.0).log_prob(torch.ones(3)).sum() + dist.Normal(3.0, 1.0).log_prob(x).sum()
    assert draws.std() > 0 and abs(draws.mean() - whole) < 4 * draws.std() / 200**0.5


@pytest.mark.long
def test_fit_energy_trains_a_guide():
    def model(x):
        means = pyro.sample("means", dist.Normal(torch.zeros(3), 2.0).to_event(1))
        both = dist.Normal(means.sum(-1, keepdim=True), 1.0).expand((*means.shape[:-1], 2)).to_event(1)
        pyro.sample("x", both, obs=x)

    x = torch.tensor([1.0, 2.0])
    guide = AutoGFlow(model, PAIR, args=(x,), check="raise", transforms=lambda a: guide_transforms(a, steps=1, width=4))
    settings = FitSettings(steps=60, batch_size=32, optimizer=Adam(lr=0.05), schedule=OneCycle(warmup=0.1, end=0.0))
    report = fit_energy(guide.flow, guide.log_density(x), settings=settings, progress=False)
    # the evidence: x is normal with mean 0 and covariance 12 + 1 on the diagonal, 12 off it
    covariance = torch.full((2, 2), 12.0) + torch.eye(2)
    evidence = dist.MultivariateNormal(torch.zeros(2), covariance).log_prob(x)
    assert report.ess > 0.8 and report.log_normalizer == pytest.approx(evidence.item(), abs=0.05), report


@pytest.mark.parametrize(
    ("model", "action", "data"),
    [(mixture, LABELS, mixture_data()), (factor_model, FACTORS, factor_data()), (plated, PAIR, torch.randn(4))],
    ids=["mixture", "factors", "plates"],
)
@pytest.mark.long
def test_it_is_minus_the_potential_that_nuts_sees(model, action, data):
    guide = AutoGFlow(model, action, args=(data,), check="skip")
    _, potential, _, _ = initialize_model(model, model_args=(data,))
    u = torch.randn(2, guide.latent_dim)
    expected = [-potential({site["name"]: free for site, free in guide._unpack_latent(row)}) for row in u]
    torch.testing.assert_close(guide.log_density(data)(u), torch.stack(expected), rtol=1e-5, atol=1e-4)
