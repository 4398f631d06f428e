"""Flows on the plane without a symmetry, each in a good configuration, in the clothes that ``infer.fit`` expects."""

from __future__ import annotations

from typing import Any

import pyro.distributions as dist
import torch
from pyro.distributions import transforms
from torch import Tensor, nn

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn import Contraction, SlopeSplines
from pyro_gflows.transforms import EquivariantTransform, GActNorm, GResidual
from pyro_gflows.transforms.one_way import Fast

__all__ = ["PlainBranch", "SplineCouplingFlow", "plain_residual_flow"]


class PlainBranch(Contraction):
    r"""One hidden layer, a contraction: :math:`f(x) = c\,V^T s(U x)` with :math:`|U|, |V| = 1, |s'| < 1`.

    Without a symmetry this one bound of the whole layer is better than ``nn.LipschitzSum`` of one-term bounds, which is
    what the equivariant flows use; so the comparator gets it.

    Args:
        terms: Hidden units.
        knots: Knots of each spline on [0, limit], and as many again on [-limit, 0].
        limit: Where the splines become linear, in units of the input.
        bound: The constant c.
    """

    bound: float
    row: Tensor

    def __init__(self, terms: int, *, knots: int, limit: float, bound: float = 0.99) -> None:
        super().__init__()
        self.action, self.bound = VectorAction.plane("C1"), bound
        self.splines = SlopeSplines(terms, knots=knots, limit=limit)
        u = torch.randn(terms, 2)
        self.u = nn.Parameter(u / u.norm(dim=1, keepdim=True))
        self.v = nn.Parameter(self.u.detach().clone())
        self.register_buffer("row", torch.arange(terms), persistent=False)

    def lipschitz_bound(self) -> Tensor:
        """The constant c."""
        return torch.tensor(self.bound)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """f(x) and its Jacobian."""
        u, v = self.u / _norm(self.u), self.v * (self.bound / _norm(self.v))
        length = u.norm(dim=1, keepdim=True)  # knots stay in units of x: s_k becomes length_k s_k(. / length_k)
        value, slope = self.splines(x @ (u / length).T, self.row)
        products = (v[:, :, None] * u[:, None, :]).reshape(-1, 4)
        return value @ (v * length), (slope @ products).unflatten(-1, (2, 2))

    def forward(self, x: Tensor) -> Tensor:
        return self.call_and_jacobian(x)[0]


def _norm(matrix: Tensor) -> Tensor:
    """The largest singular value of an (n, 2) matrix, in closed form."""
    a, b, _, d = (matrix.T @ matrix).flatten().unbind()
    return ((a + d) / 2 + ((a - d).square() / 4 + b.square()).clamp_min(1e-12).sqrt()).sqrt()


def plain_residual_flow(blocks: int, *, terms: int, knots: int, limit: float, fast: Fast = "score") -> EquivariantFlow:
    """The residual flow under the trivial group."""
    action = VectorAction.plane("C1")
    layers: list[EquivariantTransform] = []
    for _ in range(blocks):
        layers += [GActNorm(action), GResidual(action, PlainBranch(terms, knots=knots, limit=limit), fast=fast)]
    return EquivariantFlow(InvariantNormal(action), [*layers, GActNorm(action)])


class SplineCouplingFlow(nn.Module):
    """Pyro's ``spline_coupling`` layers, the two coordinates exchanged between them, over a standard normal.

    Args:
        layers: How many couplings.
        hidden: Width of each conditioner's one hidden layer.
        bins: Bins of each spline.
        scale: Standard deviation of the data, by which the last layer multiplies at the start.
    """

    def __init__(self, layers: int, *, hidden: int, bins: int, scale: float) -> None:
        super().__init__()
        self.action = VectorAction.plane("C1")
        self.layers = nn.ModuleList(
            transforms.spline_coupling(2, split_dim=1, hidden_dims=[hidden], count_bins=bins) for _ in range(layers)
        )
        self.log_scale = nn.Parameter(torch.tensor(scale).log().repeat(2))

    @property
    def dist(self) -> dist.TransformedDistribution:
        """The density."""
        exchange = transforms.Permute(torch.tensor([1, 0]))
        chain = [part for layer in self.layers for part in (layer, exchange)]
        scale = transforms.AffineTransform(torch.zeros_like(self.log_scale), self.log_scale.exp(), event_dim=1)
        base = dist.Normal(torch.zeros_like(self.log_scale), torch.ones_like(self.log_scale)).to_event(1)
        return dist.TransformedDistribution(base, [*chain, scale])

    def forward(self, x: Tensor) -> Tensor:
        log_prob: Tensor = self.dist.log_prob(x)
        return log_prob

    def initialize(self, x: Tensor) -> None:
        """Nothing to set from data."""

    def config(self) -> dict[str, Any]:
        raise TypeError("a comparator, outside the registry")
