"""Mixtures of many normals in the plane: data, model, log-joint and reference draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyro
import pyro.distributions as dist
import torch
from pyro import poutine
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from benchmarks.sampling import chains, tempered, worst_r_hat
from pyro_gflows.actions import RowsAction, SitesAction
from pyro_gflows.guides import LogRatioReparam
from pyro_gflows.guides.log_ratio import log_ratio_basis

__all__ = ["SETTINGS", "PlanarMixture", "Reference", "reference_draws"]

_AT_ONCE = 4
_SPREAD, _WIDTH = 10.0, 0.5  # of the prior: the means' standard deviation, and the log-scales'


@dataclass(frozen=True)
class PlanarMixture:
    r"""Synthetic data of K round normals in the plane, and the posterior over weights, means and scales.

    .. math:: w \sim Dirichlet(2, ..., 2), \quad \mu_k \sim N(0, 10^2 I), \quad \sigma_k \sim LogNormal(0, 1/2),
        \quad x_n \sim \sum_k w_k N(\mu_k, \sigma_k^2 I)

    The true means lie on a triangular lattice, each shifted at random by a twentieth of the lattice's spacing; the true
    scales are between 0.8 and 1.25.

    Attributes:
        name: For the command line.
        components: K.
        gap: Spacing of the lattice, in units of the data's standard deviation in each component, about 1.
        points: Data from each component.
    """

    name: str
    components: int
    gap: float
    points: int = 100

    @property
    def numel(self) -> int:
        """Coordinates of the unconstrained vector: K - 1 log-ratios of weights, 2 K of means, K log-scales."""
        return 4 * self.components - 1

    @property
    def sites(self) -> SitesAction:
        """One permutation acts on weights, means and scales."""
        k = self.components
        return SitesAction(f"S{k}", {"weights": RowsAction(k), "means": RowsAction(k, 2), "scales": RowsAction(k)})

    @property
    def action(self) -> RowsAction:
        """The same, on the unconstrained vector: the log-ratios of the weights sum to 0."""
        k = self.components
        return RowsAction([*RowsAction(k, mean_free=True).fields, *RowsAction(k, 2).fields, *RowsAction(k).fields])

    def truth(self) -> tuple[Tensor, Tensor]:
        """Means, shape (K, 2), and scales, shape (K,)."""
        generator = torch.Generator().manual_seed(self.components)
        side = math.ceil(math.sqrt(self.components))
        row, column = torch.arange(side).repeat_interleave(side), torch.arange(side).repeat(side)
        lattice = torch.stack([column + 0.5 * (row % 2), row * math.sqrt(0.75)], -1).double()
        nearest = (lattice - lattice.mean(0)).square().sum(-1).argsort()[: self.components]
        means = lattice[nearest] - lattice[nearest].mean(0)
        means = self.gap * (means + 0.05 * torch.randn(means.shape, generator=generator).double())
        return means, (0.8 * 1.5625 ** torch.rand(self.components, generator=generator)).double()

    def data(self) -> Tensor:
        """The same number of points of each component, shape (points K, 2)."""
        means, scales = self.truth()
        generator = torch.Generator().manual_seed(100 + self.components)
        noise = torch.randn(self.points, self.components, 2, generator=generator).double()
        return (means + scales[:, None] * noise).flatten(0, 1)

    def model(self, x: Tensor) -> None:
        """The model, discrete assignments summed out."""
        like = x.new_ones(self.components)
        with poutine.reparam(config={"weights": LogRatioReparam()}):
            weights = pyro.sample("weights", dist.Dirichlet(2 * like))
        means = pyro.sample("means", dist.Normal(0 * like[:, None].expand(-1, 2), _SPREAD).to_event(2))
        scales = pyro.sample("scales", dist.LogNormal(0 * like, _WIDTH).to_event(1))
        with pyro.plate("data", len(x)):
            each = dist.Normal(means, scales[..., None]).to_event(1)
            pyro.sample("x", dist.MixtureSameFamily(dist.Categorical(weights), each), obs=x)

    # -- the unconstrained vector ---------------------------------------------------------------------------------
    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-weights (..., K), means (..., K, 2) and log-scales (..., K)."""
        k = self.components
        log_weights = torch.log_softmax(z[..., : k - 1] @ log_ratio_basis(k).to(z), -1)
        return log_weights, z[..., k - 1 : 3 * k - 1].unflatten(-1, (k, 2)), z[..., 3 * k - 1 :]

    def join(self, log_weights: Tensor, means: Tensor, log_scales: Tensor) -> Tensor:
        """The unconstrained vector of these log-weights, means and log-scales."""
        ratios = log_weights @ log_ratio_basis(self.components).to(log_weights).T
        return torch.cat([ratios, means.flatten(-2), log_scales], -1)

    def unconstrained(self, values: dict[str, Tensor]) -> Tensor:
        """Unconstrained vectors from the sites' values."""
        return self.join(values["weights"].log(), values["means"], values["scales"].log())

    def permuted(self, z: Tensor, order: Tensor) -> Tensor:
        """Unconstrained vectors after each one's components are put in an order of its own, shape (..., K)."""
        log_weights, means, log_scales = self.split(z)
        moved = means.gather(-2, order[..., None].expand(*order.shape, 2))
        return self.join(log_weights.gather(-1, order), moved, log_scales.gather(-1, order))

    def relabeled(self, z: Tensor) -> Tensor:
        """Every vector under a random permutation of its own, of shape ``(n, d)``."""
        return self.permuted(z, torch.rand(len(z), self.components).argsort(-1))

    def canonical(self, z: Tensor) -> Tensor:
        """The image of each vector whose means are in increasing order along one fixed direction."""
        return self.permuted(z, (self.split(z)[1] @ self.direction().to(z)).argsort(-1))

    def direction(self) -> Tensor:
        """The direction, of 180, along which the true means' smallest gap is largest."""
        angles = torch.arange(180).double() * math.pi / 180
        directions = torch.stack([angles.cos(), angles.sin()])
        gaps = (self.truth()[0] @ directions).sort(0).values.diff(dim=0).amin(0)
        return directions[:, gaps.argmax()]

    def matched(self, z: Tensor) -> Tensor:
        """The image of each vector whose means are nearest to the true ones, by the sum of squared distances."""
        costs = (self.split(z)[1][:, None] - self.truth()[0].to(z)[:, None]).square().sum(-1)
        orders = [linear_sum_assignment(cost.numpy())[1] for cost in costs]  # for each true mean, a component
        return self.permuted(z, torch.stack([torch.as_tensor(order) for order in orders]))

    # -- the log-joint, written out -------------------------------------------------------------------------------
    def prior_draws(self, n: int, *, dtype: torch.dtype = torch.float64) -> Tensor:
        """Draws of the prior, as unconstrained vectors."""
        k = self.components
        weights = torch.distributions.Dirichlet(torch.full((k,), 2.0, dtype=dtype)).sample((n,))
        means, log_scales = torch.randn(n, k, 2, dtype=dtype), torch.randn(n, k, dtype=dtype)
        return self.join(weights.log(), _SPREAD * means, _WIDTH * log_scales)

    def log_prior(self, z: Tensor) -> Tensor:
        """The log-density of the prior at unconstrained vectors."""
        k = self.components
        log_weights, means, log_scales = self.split(z)
        constant = math.lgamma(2.0 * k) - k * math.lgamma(2.0) + 0.5 * math.log(k)
        constant -= k * (2 * math.log(_SPREAD) + math.log(_WIDTH) + 1.5 * math.log(2 * math.pi))
        squares = (means / _SPREAD).square().sum((-1, -2)) + (log_scales / _WIDTH).square().sum(-1)
        # of the weights: a Dirichlet's density times the Jacobian of log-ratios
        return 2.0 * log_weights.sum(-1) - 0.5 * squares + constant

    def log_likelihood(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The log-likelihood of data, a function of unconstrained vectors of shape ``(n, d)``."""
        # log w N(x; mu, sigma^2) is linear in (1, x, |x|^2): one product of matrices for all components and vectors
        features = torch.cat([torch.ones_like(x[:, :1]), x, x.square().sum(-1, keepdim=True)], -1).T.contiguous()
        constant = len(x) * math.log(2 * math.pi)

        def log_likelihood(z: Tensor) -> Tensor:
            log_weights, means, log_scales = self.split(z)
            precision = (-2 * log_scales).exp()
            level = log_weights - 2 * log_scales - 0.5 * precision * means.square().sum(-1)
            rows = torch.cat([level[..., None], precision[..., None] * means, -0.5 * precision[..., None]], -1)
            found: Tensor = _MixtureScores.apply(rows, features.to(z))
            return found - constant

        return log_likelihood

    def log_density(self, x: Tensor) -> Callable[[Tensor], Tensor]:
        """The log-joint, a function of unconstrained vectors of shape ``(n, d)``."""
        log_likelihood = self.log_likelihood(x)
        return lambda z: self.log_prior(z) + log_likelihood(z)

    def label_free(self, z: Tensor) -> Tensor:
        """Figures of each draw that no relabeling changes, shape ``(..., figures)``.

        The sorted weights, the first three power sums of the means' coordinates and of the log-scales, the log-joint,
        and the log of the mixture's density at eight of the data.
        """
        flat = z.flatten(0, -2)
        log_weights, means, log_scales = self.split(flat)
        x = self.data().to(z)
        powers = [
            part.pow(n).sum(-1, keepdim=True) for part in (means[..., 0], means[..., 1], log_scales) for n in (1, 2, 3)
        ]
        joint = self.log_density(x)(flat)[:, None]
        some = x[:: max(1, len(x) // 8)][:8]
        each = torch.stack([self.log_likelihood(point[None])(flat) for point in some], -1)
        figures = torch.cat([log_weights.sort(-1).values, *powers, joint, each], -1)
        return figures.unflatten(0, z.shape[:-1])


class _MixtureScores(torch.autograd.Function):
    """The sum over points of logsumexp over components of ``rows @ features``, with its gradient in the same pass.

    A few vectors at a time, so that all fits the processor's cache: three times as fast as plain operations.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, features: Tensor) -> Tensor:
        values, slopes = [], []
        for part in rows.split(_AT_ONCE):
            each = part @ features  # (vectors, K, points)
            top = each.amax(1, keepdim=True)
            each = each.sub_(top).exp_()
            total = each.sum(1, keepdim=True)
            values.append((total.log() + top).sum((1, 2)))
            slopes.append(each.div_(total) @ features.T)
        ctx.save_for_backward(rows, features, torch.cat(slopes))
        return torch.cat(values)

    @staticmethod
    def backward(ctx: Any, slope: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        rows, features, slopes = ctx.saved_tensors
        if torch.is_grad_enabled():  # a second derivative is asked for
            slopes = (rows @ features).softmax(1) @ features.T
        return slope[:, None, None] * slopes, None


SETTINGS = {
    f"k{k}-{kind}": PlanarMixture(f"k{k}-{kind}", k, gap)
    for k in (5, 8, 12, 20)
    for kind, gap in (("separated", 6.0), ("overlapping", 3.6))
}


@dataclass(frozen=True)
class Reference:
    """Canonical forms of reference draws, shape ``(n, d)``, and how far their chains agree.

    Attributes:
        draws: Unconstrained vectors, all chains one after the other.
        chains: How many chains there were.
        r_hat: The worst R-hat of the label-free figures.
        acceptance: The mean rate of acceptance.
        log_evidence: Of the sequential Monte Carlo that made the starts, up to log K!, which it leaves open.
    """

    draws: Tensor
    chains: int
    r_hat: float
    acceptance: float
    log_evidence: float


def reference_draws(
    mixture: PlanarMixture,
    *,
    seed: int = 0,
    particles: int = 256,
    count: int = 64,
    draws: int = 160,
    warmup: int = 300,
    thin: int = 3,
    share: float = 0.5,
) -> Reference:
    """Long Hamiltonian chains from starts that sequential Monte Carlo makes out of draws of the prior.

    At low powers of the likelihood the particles find the clusters; those that end with two components in one cluster
    are left behind by the weights. The chains start at some of the particles, relabeled once so that they share a
    covariance, and then run without any relabeling.
    """
    torch.manual_seed(seed)
    x = mixture.data()

    def scales(z: Tensor) -> Tensor:
        # the same for all components, so that moves treat them alike
        spread = mixture.matched(z).std(0)
        k = mixture.components
        parts = (slice(0, k - 1), slice(k - 1, 3 * k - 1), slice(3 * k - 1, 4 * k - 1))
        return torch.cat([spread[part].median().expand(len(spread[part])) for part in parts])

    likelihood = mixture.log_likelihood(x)
    found = tempered(mixture.log_prior, likelihood, mixture.prior_draws(particles), share=share, scales=scales)
    starts = mixture.matched(found.draws[torch.randperm(particles)[:count]])
    run = chains(mixture.log_density(x), starts, warmup=warmup, draws=draws, thin=thin)
    figures = mixture.label_free(run.draws)
    return Reference(
        mixture.canonical(run.draws.flatten(0, 1)), count, worst_r_hat(figures), run.acceptance, found.log_evidence
    )
