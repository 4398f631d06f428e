"""The log-joint of many latent vectors at once, against the model's own trace of each."""

import pyro
import pyro.distributions as dist
import pytest
import torch
from pyro import poutine
from torch.distributions import biject_to

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.infer.guides import AutoGFlow
from tests.infer.guides.models import FACTORS, LABELS, factor_data, factor_model, mixture, mixture_data

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
