"""Bayesian neural networks with one hidden layer on scikit-learn's diabetes data: data, model and log-joint."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyro
import pyro.distributions as dist
import torch
from sklearn.datasets import load_diabetes
from torch import Tensor

from pyro_gflows.actions import RowsAction, SitesAction, VectorAction

__all__ = ["SETTINGS", "Network"]

_IN, _NOISE = 1.0, (-0.5, 0.5)  # of the prior: in-weights' standard deviation; the log noise's mean and deviation
_SEED = 0  # of the split into train and test
_TEST = 100


@dataclass(frozen=True)
class Network:
    r"""A network with H tanh units for the diabetes data, every column standardized, and its posterior.

    .. math:: y \sim N\Big(c + \sum_h v_h \tanh(w_h \cdot x + b_h),\ \sigma^2\Big)

    with the prior :math:`w_h \sim N(0, I)`, :math:`b_h \sim N(0, 1)`, :math:`v_h \sim N(0, 1 / H)`,
    :math:`c \sim N(0, 1)`, :math:`\log\sigma \sim N(-1/2, 1/4)`. The order of the units is free, and so is the sign of
    each: the posterior is invariant under :math:`H!\,2^H` signed permutations.

    Attributes:
        name: For the command line.
        units: H.
        columns: The names of the features.
        rows: The first so many rows of the training data.
    """

    name: str
    units: int
    columns: Sequence[str] = ("age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6")
    rows: int = 342

    @property
    def numel(self) -> int:
        """Coordinates of the unconstrained vector: H in-weights a feature, H biases, H out-weights, and two more."""
        return self.units * (len(self.columns) + 2) + 2

    @property
    def log_order(self) -> float:
        """The log of the number of signed permutations."""
        return math.lgamma(self.units + 1) + self.units * math.log(2.0)

    @property
    def sites(self) -> SitesAction:
        """One signed permutation acts on in-weights, biases and out-weights, which all change sign with their unit."""
        h, f = self.units, len(self.columns)
        odd = RowsAction(h, signed=True)
        return SitesAction(odd.group, {"in": RowsAction(h, f, signed=True), "bias": odd, "out": odd})

    @property
    def action(self) -> VectorAction:
        """The same, on the unconstrained vector."""
        return self.sites.packed(
            {"in": self.units * len(self.columns), "bias": self.units, "out": self.units, "offset": 1, "noise": 1}
        )

    def data(self) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
        """Features and targets for training, and for the test."""
        found = load_diabetes(scaled=False)
        chosen = [list(found.feature_names).index(name) for name in self.columns]
        x, y = torch.as_tensor(found.data[:, chosen]).double(), torch.as_tensor(found.target).double()
        order = torch.randperm(len(x), generator=torch.Generator().manual_seed(_SEED))
        test, train = order[:_TEST], order[_TEST : _TEST + self.rows]
        x, y = (x - x[train].mean(0)) / x[train].std(0), (y - y[train].mean()) / y[train].std()
        return (x[train], y[train]), (x[test], y[test])

    def model(self, x: Tensor, y: Tensor) -> None:
        """The model, for x of shape (rows, features)."""
        h, f = self.units, len(self.columns)
        zero, one = x.new_zeros(()), x.new_ones(())
        weights = pyro.sample("in", dist.Normal(zero.expand(h, f), _IN * one).to_event(2))
        biases = pyro.sample("bias", dist.Normal(zero.expand(h), one).to_event(1))
        out = pyro.sample("out", dist.Normal(zero.expand(h), one * h**-0.5).to_event(1))
        offset = pyro.sample("offset", dist.Normal(zero, one))
        noise = pyro.sample("noise", dist.LogNormal(_NOISE[0] * one, _NOISE[1] * one))
        hidden = (weights @ x.T + biases[..., None]).tanh()
        mean = (out[..., None, :] @ hidden).squeeze(-2)
        if mean.ndim > 1:  # many draws at once: rows take the place of the dimension that the plate leaves to them
            mean = mean.squeeze(-2)
        with pyro.plate("data", len(x)):
            pyro.sample("y", dist.Normal(mean + offset, noise), obs=y)

    # -- the unconstrained vector ---------------------------------------------------------------------------------
    def split(self, z: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Units, shape (..., H, F + 2): in-weights, bias, out-weight; offsets and log noises, shape (...)."""
        h, f = self.units, len(self.columns)
        weights, rest = z[..., : h * f].unflatten(-1, (h, f)), z[..., h * f : h * (f + 2)].unflatten(-1, (2, h))
        return torch.cat([weights, rest.transpose(-1, -2)], -1), z[..., -2], z[..., -1]

    def join(self, units: Tensor, offset: Tensor, log_noise: Tensor) -> Tensor:
        """The unconstrained vector of these units, offset and log noise."""
        flat = [units[..., :-2].flatten(-2), units[..., -2], units[..., -1]]
        return torch.cat([*flat, offset[..., None], log_noise[..., None]], -1)

    def values(self, z: Tensor) -> dict[str, Tensor]:
        """The sites' values from an unconstrained vector."""
        units, offset, log_noise = self.split(z)
        return {
            "in": units[..., :-2],
            "bias": units[..., -2],
            "out": units[..., -1],
            "offset": offset,
            "noise": log_noise.exp(),
        }

    def unconstrained(self, values: dict[str, Tensor]) -> Tensor:
        """Unconstrained vectors from the sites' values, of shape ``(n, ...)``."""
        units = torch.cat([values["in"], values["bias"][..., None], values["out"][..., None]], -1)
        return self.join(
            units, values["offset"].reshape(units.shape[:-2]), values["noise"].log().reshape(units.shape[:-2])
        )

    def image(self, z: Tensor, order: Tensor, signs: Tensor) -> Tensor:
        """Unconstrained vectors whose units are put in an order and get signs of their own, shape (..., H) each."""
        units, offset, log_noise = self.split(z)
        moved = (units * signs[..., None]).gather(-2, order[..., None].expand(*order.shape, units.shape[-1]))
        return self.join(moved, offset.expand(moved.shape[:-2]), log_noise.expand(moved.shape[:-2]))

    def all_images(self, z: Tensor) -> Tensor:
        """All images of each vector, shape ``(elements, n, d)``; for few units."""
        orders = list(itertools.permutations(range(self.units)))
        signs = list(itertools.product([1.0, -1.0], repeat=self.units))
        pairs = list(itertools.product(orders, signs))
        order = torch.tensor([pair[0] for pair in pairs])[:, None].expand(-1, len(z), -1)
        sign = torch.tensor([pair[1] for pair in pairs]).to(z)[:, None].expand(-1, len(z), -1)
        return self.image(z.expand(len(pairs), *z.shape), order, sign)

    def near_images(self, z: Tensor) -> Tensor:
        """The images under all transpositions of units and single changes of sign, shape ``(elements, n, d)``."""
        h = self.units
        pairs = list(itertools.combinations(range(h), 2))
        order = torch.arange(h).repeat(len(pairs) + h, 1)
        signs = torch.ones(len(pairs) + h, h).to(z)
        for place, (a, b) in enumerate(pairs):
            order[place, a], order[place, b] = b, a
        signs[len(pairs) + torch.arange(h), torch.arange(h)] = -1.0
        shape = (len(order), len(z), h)
        return self.image(z.expand(len(order), *z.shape), order[:, None].expand(shape), signs[:, None].expand(shape))

    def random_images(self, z: Tensor) -> Tensor:
        """Each vector under a random signed permutation of its own."""
        order = torch.rand(len(z), self.units).argsort(-1)
        return self.image(z, order, 2.0 * torch.randint(0, 2, (len(z), self.units)).to(z) - 1)

    # -- the log-joint, written out -------------------------------------------------------------------------------
    def prior_draws(self, n: int) -> Tensor:
        """Draws of the prior, as unconstrained vectors."""
        h, f = self.units, len(self.columns)
        units = torch.randn(n, h, f + 2, dtype=torch.float64)
        units = units * torch.tensor([_IN] * f + [1.0, h**-0.5]).double()
        rest = torch.randn(2, n, dtype=torch.float64)
        return self.join(units, rest[0], _NOISE[0] + _NOISE[1] * rest[1])

    def log_prior(self, z: Tensor) -> Tensor:
        """The log-density of the prior at unconstrained vectors."""
        units, offset, log_noise = self.split(z)
        squares = (units[..., :-2] / _IN).square().sum((-1, -2)) + units[..., -2].square().sum(-1)
        squares = squares + self.units * units[..., -1].square().sum(-1) + offset.square()
        squares = squares + ((log_noise - _NOISE[0]) / _NOISE[1]).square()
        constant = self.units * (len(self.columns) * math.log(_IN) - 0.5 * math.log(self.units)) + math.log(_NOISE[1])
        return -0.5 * squares - constant - 0.5 * self.numel * math.log(2 * math.pi)

    def mean(self, z: Tensor, x: Tensor) -> Tensor:
        """The network's output, shape ``(n, rows)``."""
        units, offset, _ = self.split(z)
        features = torch.cat([x, torch.ones_like(x[:, :1])], -1).to(z)
        hidden = (features @ units[..., :-1].flatten(0, 1).T).tanh().unflatten(-1, units.shape[:2])  # (rows, n, H)
        return ((hidden * units[..., -1]).sum(-1) + offset).T

    def log_probs(self, z: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """The log-density of each target, shape ``(n, rows)``."""
        log_noise = z[..., -1:]
        standard = (y.to(z) - self.mean(z, x)) * (-log_noise).exp()
        return -0.5 * standard.square() - log_noise - 0.5 * math.log(2 * math.pi)

    def log_likelihood(self) -> Callable[[Tensor], Tensor]:
        """The log-likelihood of the training data, a function of unconstrained vectors of shape ``(n, d)``."""
        (x, y), _ = self.data()
        return lambda z: self.log_probs(z, x, y).sum(-1)

    def log_density(self) -> Callable[[Tensor], Tensor]:
        """The log-joint, a function of unconstrained vectors of shape ``(n, d)``."""
        log_likelihood = self.log_likelihood()
        return lambda z: self.log_prior(z) + log_likelihood(z)

    def log_predictive(self, z: Tensor) -> Tensor:
        """For each row of the test data, the log of the mean density of its target over draws, shape ``(rows,)``."""
        _, (x, y) = self.data()
        parts = [self.log_probs(part, x, y) for part in z.split(1000)]
        return torch.cat(parts).logsumexp(0) - math.log(len(z))


SETTINGS = {
    network.name: network
    for network in [
        Network("h3", 3, ("bmi", "bp", "s5"), 60),
        Network("h20", 20),
        Network("h50", 50),
    ]
}
