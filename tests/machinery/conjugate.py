"""A conjugate model whose posterior is a Gaussian with a symmetry: everything about it is known."""

import math

import pyro
import pyro.distributions as dist
import torch

from pyro_gflows import InvariantNormal, SitesAction, VectorAction
from pyro_gflows.guides import AutoGFlow
from pyro_gflows.transforms import GActNorm

ROWS = VectorAction.rows("S3")
ACTION = SitesAction("S3", {"rows": ROWS})
NOISE = 0.5
X = torch.tensor([1.3, 0.9, 1.4, 1.1, 0.7, 1.2], dtype=torch.float64)


def model(x=X):
    """Only the sum of the rows is seen, so the posterior is wide across it and narrow along it."""
    rows = pyro.sample("rows", dist.Normal(torch.zeros(3, dtype=torch.float64), 1.0).to_event(1))
    means = rows.sum(-1, keepdim=True).expand(*rows.shape[:-1], len(x))
    pyro.sample("x", dist.Normal(means, NOISE).to_event(1), obs=x)


def log_evidence(x=X):
    ones = torch.ones(len(x), len(x), dtype=torch.float64)
    covariance = 3 * ones + NOISE**2 * torch.eye(len(x), dtype=torch.float64)
    return dist.MultivariateNormal(torch.zeros(len(x), dtype=torch.float64), covariance).log_prob(x)


def make_guide(*, exact):
    """A Gaussian guide with the symmetry, before training or at the posterior."""
    guide = AutoGFlow(
        model,
        ACTION,
        transforms=lambda action: [GActNorm(action)],
        base=lambda action: InvariantNormal(action, covariance="isotypic", mean=True),
        check="raise",
    )
    if exact:
        # along (1, 1, 1) / sqrt(3) the data have precision 3 n / noise^2, about their mean / sqrt(3); across it, none
        seen = 3 * len(X) / NOISE**2
        mean = (X.mean() / 3 * seen / (1 + seen)).expand(3)
        module = guide.flow.base_module
        trivial = [isotype.is_trivial for isotype in ROWS.decomposition].index(True)
        with torch.no_grad():
            module.factor.log_scale[trivial] = -0.5 * math.log(1 + seen)
            module.mean.coordinates.copy_(module.mean.basis(mean) @ mean)
    return guide
