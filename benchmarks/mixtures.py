"""Gaussian mixtures with exchangeable components: data, model, log-posterior and long-run NUTS draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from pyro.infer import NUTS
from pyro.infer.mcmc import MCMC
from pyro.ops.stats import split_gelman_rubin
from torch import Tensor

from pyro_gflows.actions import SitesAction, VectorAction
from pyro_gflows.guides import LogRatioReparam
from pyro_gflows.guides.log_ratio import log_ratio_basis

__all__ = ["SETTINGS", "Mixture", "nuts_draws"]


@dataclass(frozen=True)
class Mixture:
    r"""Synthetic data of K normals, and the posterior over weights, means and scales.

    .. math:: w \sim Dirichlet(2, ..., 2), \quad \mu_k \sim N(0, 10^2), \quad \sigma_k \sim LogNormal(0, 1/2),
        \quad x_n \sim \sum_k w_k N(\mu_k, \sigma_k^2)

    Attributes:
        name: For the command line.
        components: K.
        gap: Distance of neighboring means, in units of the data's standard deviation in each component, 1. At 3, two
            neighbors overlap by 13 %.
        points: Data from each component.
    """

    name: str
    components: int
    gap: float
    points: int

    @property
    def action(self) -> SitesAction:
        """One permutation moves weights, means and scales."""
        rows = VectorAction.rows(f"S{self.components}")
        return SitesAction(f"S{self.components}", {"means": rows, "weights": rows, "scales": rows})

    def data(self) -> Tensor:
        """The same number of points of each component."""
        generator = torch.Generator().manual_seed(self.components)
        means = self.gap * (torch.arange(self.components) - (self.components - 1) / 2)
        return (means.repeat(self.points) + torch.randn(self.points * len(means), generator=generator)).double()

    def model(self, x: Tensor) -> None:
        """The model, discrete assignments summed out."""
        like = x.new_ones(self.components)
        with poutine.reparam(config={"weights": LogRatioReparam()}):
            weights = pyro.sample("weights", dist.Dirichlet(2 * like))
        means = pyro.sample("means", dist.Normal(0 * like, 10.0).to_event(1))
        scales = pyro.sample("scales", dist.LogNormal(0 * like, 0.5).to_event(1))
        with pyro.plate("data", len(x)):
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), dist.Normal(means, scales)), obs=x)

    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights, means and log-scales of unconstrained vectors (log-ratios of weights, means, log-scales)."""
        k = self.components
        log_weights = torch.log_softmax(z[..., : k - 1] @ log_ratio_basis(k).to(z), -1)
        return log_weights, z[..., k - 1 : 2 * k - 1], z[..., 2 * k - 1 :]

    def values(self, z: Tensor) -> dict[str, Tensor]:
        """The sites' values from unconstrained vectors."""
        log_weights, means, log_scales = self.split(z)
        return {"weights": log_weights.exp(), "means": means, "scales": log_scales.exp()}

    def unconstrained(self, values: dict[str, Tensor]) -> Tensor:
        """Unconstrained vectors from the sites' values."""
        ratios = values["weights"].log() @ log_ratio_basis(self.components).to(values["weights"]).T
        return torch.cat([ratios, values["means"], values["scales"].log()], -1)

    def permuted(self, z: Tensor, order: Tensor) -> Tensor:
        """Unconstrained vectors after each one's components are put in an order of its own."""
        log_weights, means, log_scales = (part.gather(-1, order) for part in self.split(z))
        return torch.cat([log_weights @ log_ratio_basis(self.components).to(z).T, means, log_scales], -1)

    def log_density(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The same log-joint written out, of unconstrained vectors."""
        k = self.components
        constant = math.lgamma(2.0 * k) - k * math.lgamma(2.0) + 0.5 * math.log(k)
        constant -= k * (math.log(10.0) + math.log(0.5) + math.log(2 * math.pi)) + len(x) * 0.5 * math.log(2 * math.pi)

        def log_joint(z: Tensor) -> Tensor:
            log_weights, means, log_scales = self.split(z)
            standard = (x[:, None] - means[..., None, :]) * (-log_scales)[..., None, :].exp()
            each = (log_weights - log_scales)[..., None, :] - 0.5 * standard.square()
            # of means and log-scales, and of weights: a Dirichlet's density times the Jacobian of log-ratios
            prior = -0.5 * ((means / 10.0).square() + (log_scales / 0.5).square()).sum(-1) + 2.0 * log_weights.sum(-1)
            return each.logsumexp(-1).sum(-1) + prior + constant

        return log_joint


SETTINGS = {
    mixture.name: mixture
    for mixture in [
        Mixture("k3-separated", 3, 6.0, 100),
        Mixture("k3-overlapping", 3, 3.0, 100),
        Mixture("k5-separated", 5, 6.0, 100),
        Mixture("k5-overlapping", 5, 3.0, 200),
    ]
}


def nuts_draws(
    mixture: Mixture, *, chains: int = 4, draws: int = 250, warmup: int = 300, copies: int = 10
) -> tuple[Tensor, float]:
    """Draws of the unconstrained vector by Pyro's NUTS, and the worst R-hat of the relabeled chains.

    Each chain starts at quantiles of 50 random data points: from single points, a chain can stay for good at two
    components in one cluster. Neighboring draws of a chain are alike, and Pyro takes one slope at a time; so each draw
    is then carried on by several chains of HMC, of which all are run at once.

    Returns:
        ``copies * chains * draws`` draws of shape (3 K - 1,), each permuted at random, and R-hat of the chains of NUTS.
    """
    x, k = mixture.data(), mixture.components
    log_density = mixture.log_density(x)
    found = []
    for chain in range(chains):
        pyro.set_rng_seed(chain)
        start = torch.zeros(3 * k - 1, dtype=x.dtype)
        start[k - 1 : 2 * k - 1] = x[torch.randperm(len(x))[:50]].quantile((torch.arange(k) + 0.5).to(x) / k)
        kernel = NUTS(potential_fn=lambda z: -log_density(z["z"]), full_mass=True)
        mcmc = MCMC(kernel, draws, warmup_steps=warmup, initial_params={"z": start}, disable_progbar=True)
        mcmc.run()
        found.append(mcmc.get_samples()["z"])
    z = torch.stack(found)
    z = mixture.permuted(z, mixture.split(z)[1].argsort(-1))
    r_hat = float(split_gelman_rubin(z, chain_dim=0, sample_dim=1).max())
    z = hmc(log_density, z.flatten(0, 1).repeat(copies, 1))
    return mixture.permuted(z, torch.rand(len(z), k).argsort(-1)), r_hat


def hmc(log_density: Callable[[Tensor], Tensor], z: Tensor, *, moves: int = 3, leaps: int = 6) -> Tensor:
    """Hamiltonian moves of many chains at once, all in one mode, from draws that already follow the density."""
    factor = torch.linalg.cholesky(z.T.cov())
    for _ in range(moves):
        size = 0.25 * (0.5 + torch.rand(len(z), 1, dtype=z.dtype))
        momentum = torch.randn_like(z)
        at, start = z, log_density(z) - 0.5 * momentum.square().sum(-1)
        moving = momentum + 0.5 * size * _slope(log_density, at) @ factor
        for leap in range(leaps):
            at = at + size * moving @ factor.T
            moving = moving + (0.5 if leap == leaps - 1 else 1.0) * size * _slope(log_density, at) @ factor
        gain = log_density(at) - 0.5 * moving.square().sum(-1) - start
        z = torch.where((torch.rand_like(gain).log() < gain)[:, None], at, z)
    return z


def _slope(log_density: Callable[[Tensor], Tensor], z: Tensor) -> Tensor:
    z = z.detach().requires_grad_()
    (slope,) = torch.autograd.grad(log_density(z).sum(), z)
    return slope
