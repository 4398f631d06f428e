"""Small models with a symmetry, shared by the tests of guides."""

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.groups import parse_group
from pyro_gflows.guides import LogRatioReparam

ROWS = VectorAction.rows("S3")
LABELS = SitesAction("S3", {"weights": ROWS, "means": ROWS, "scales": ROWS})

SIGNS = parse_group("C2 x C2")
FACTORS = SitesAction(SIGNS, {"loadings": VectorAction.signs(2, copies=3), "scores": VectorAction.signs(2, copies=4)})


def mixture_data(dtype=torch.float32):
    generator = torch.Generator().manual_seed(0)
    centers = torch.tensor([-3.0, 0.0, 3.0]).repeat(6)
    return (centers + 0.5 * torch.randn(18, generator=generator)).to(dtype)


def plain_mixture(x):
    """Three components that nothing distinguishes; the weights in stick-breaking coordinates."""
    like = x.new_ones(3)
    weights = pyro.sample("weights", dist.Dirichlet(2 * like))
    means = pyro.sample("means", dist.Normal(0 * like, 5.0).to_event(1))
    scales = pyro.sample("scales", dist.LogNormal(-0.5 * like, 0.5).to_event(1))
    components = dist.Normal(means[..., None, :], scales[..., None, :])
    each = dist.MixtureSameFamily(dist.Categorical(weights[..., None, :]), components)
    pyro.sample("x", each.expand([*weights.shape[:-1], len(x)]).to_event(1), obs=x)


mixture = poutine.reparam(plain_mixture, config={"weights": LogRatioReparam()})


def factor_data():
    return torch.randn(4, 3, generator=torch.Generator().manual_seed(1))


def factor_model(x):
    """x = scores loadings^T + noise: a sign of each factor is free."""
    noise = pyro.sample("noise", dist.LogNormal(x.new_tensor(-1.0), 0.3))
    loadings = pyro.sample("loadings", dist.Normal(x.new_zeros(3, 2), 1.0).to_event(2))
    scores = pyro.sample("scores", dist.Normal(x.new_zeros(4, 2), 1.0).to_event(2))
    pyro.sample("x", dist.Normal(scores @ loadings.mT, noise[..., None, None]).to_event(2), obs=x)
