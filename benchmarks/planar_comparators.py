"""Flows on the plane without a symmetry, each in a good configuration."""

from __future__ import annotations

import torch
from pyro.distributions import transforms
from torch import Tensor, nn

from pyro_gflows.actions import VectorAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows.equivariant_flow import EquivariantFlow
from pyro_gflows.nn import Contraction, SlopeSplines
from pyro_gflows.transforms import EquivariantTransform, GActNorm, GResidual
from pyro_gflows.transforms.one_way import Fast

__all__ = ["PlainBranch", "SplineCouplings", "plain_residual_flow", "spline_coupling_flow"]


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


class SplineCouplings(EquivariantTransform):
    """Pyro's ``spline_coupling`` layers, the two coordinates exchanged after each, and a scale for each coordinate.

    Args:
        layers: How many couplings.
        hidden: Width of each conditioner's one hidden layer.
        bins: Bins of each spline.
        scale: By which the last layer multiplies at the start, such as the standard deviation of the data.
    """

    def __init__(self, layers: int, *, hidden: int, bins: int, scale: float) -> None:
        super().__init__(VectorAction.plane("C1"))
        self.layers = nn.ModuleList(
            transforms.spline_coupling(2, split_dim=1, hidden_dims=[hidden], count_bins=bins) for _ in range(layers)
        )
        self.log_scale = nn.Parameter(torch.tensor(scale).log().repeat(2))

    def call_and_ladj(self, x: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From base to data."""
        ladj = self.log_scale.sum().expand(x.shape[:-1])
        for layer in self.layers:
            y = layer(x)
            ladj, x = ladj + layer.log_abs_det_jacobian(x, y), y.flip(-1)
        return x * self.log_scale.exp(), ladj

    def inv_call_and_ladj(self, y: Tensor, context: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """From data to base."""
        ladj, y = -self.log_scale.sum().expand(y.shape[:-1]), y * (-self.log_scale).exp()
        for layer in reversed(self.layers):
            y = y.flip(-1)
            x = layer.inv(y)
            ladj, y = ladj - layer.log_abs_det_jacobian(x, y), x
        return y, ladj


def spline_coupling_flow(layers: int, *, hidden: int, bins: int, scale: float) -> EquivariantFlow:
    """``SplineCouplings`` of a standard normal."""
    transform = SplineCouplings(layers, hidden=hidden, bins=bins, scale=scale)
    return EquivariantFlow(InvariantNormal(transform.action_in), [transform])
