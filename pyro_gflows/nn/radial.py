"""Radial terms of residual branches, which stretch each isotypic part of a vector along itself."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn.isotypic import IsotypicParts
from pyro_gflows.nn.splines import SlopeSplines
from pyro_gflows.nn.terms import Term
from pyro_gflows.numerics import Product
from pyro_gflows.numerics.transforms_active import graph_if
from pyro_gflows.serialization.registry import registered

__all__ = ["RadialTerm", "safe_norm", "safe_root"]

_LEAST_SQUARE = 1e-24


def safe_norm(x: Tensor) -> Tensor:
    """The norm of x over the last dimension (kept), at least 1e-12, with gradient 0 at the origin instead of NaN."""
    return safe_root(x.square().sum(-1, keepdim=True))


def safe_root(square: Tensor) -> Tensor:
    """The root of squared norms, at least 1e-12, with gradient 0 at 0 instead of NaN."""
    return square.clamp_min(_LEAST_SQUARE).sqrt()


@registered
class RadialTerm(Term):
    r"""A 1-Lipschitz function along the radius of each isotypic part of a vector, with its Jacobian in closed form.

    It is a term of a :class:`LipschitzSum`. The vector x is the sum of its orthogonal projections :math:`x_i` on the
    isotypic components (all copies of one irrep together).

    .. math:: f(x) = \sum_i \frac{x_i}{|x_i|} g_i(|x_i|), \qquad g_i(0) = 0,\; |g_i'| < 1

    The Jacobian has the eigenvalues :math:`g_i'(r)` (along :math:`x_i`) and :math:`g_i(r)/r` (across), both below 1 in
    absolute value. The term commutes with every orthogonal map of each part, so with every group, also a continuous
    one.

    Args:
        action: How the group acts on vectors.
        knots: The number of knots of each g_i on [0, limit].
        limit: The radius beyond which g_i is linear.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> term = RadialTerm(VectorAction.plane("O(2)"))
        >>> value, jacobian = term.call_and_jacobian(torch.zeros(5, 2), torch.ones(1))
        >>> value.shape, jacobian.shape
        (torch.Size([5, 2]), torch.Size([5, 2, 2]))
    """

    terms = 1
    part_of: Tensor

    def __init__(self, action: LinearAction, *, knots: int = 64, limit: float = 4.0) -> None:
        super().__init__()
        self.action = require_linear(action)
        self.parts = IsotypicParts(action)
        self.splines = SlopeSplines(len(self.parts), knots=knots, limit=limit, odd=True, start=0.0)

        part_of = [part for part, size in enumerate(self.parts.sizes) for _ in range(size)]
        self.register_buffer("part_of", torch.tensor(part_of), persistent=False)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        coordinates, _, across, _ = self._profiles(x)
        return self._event(self._spread(weights[0] * across) * coordinates)

    def call_and_jacobian(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        coordinates, unit, across, along = self._profiles(x)
        value = self._event(self._spread(weights[0] * across) * coordinates)
        identity = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device)
        if len(self.parts) == 1:
            outer = unit[..., :, None] * unit[..., None, :]
            return value, weights[0] * (across[..., None] * identity + (along - across)[..., None] * outer)
        # the sum over the parts of across P + (along - across) e e^T, with the projection P on the part and the unit
        # vector e along it
        rows, indicator = self._event(identity), self._indicator(x).T
        projections = (indicator[..., None] * rows).mT @ rows
        along_parts = self._event(indicator * unit[..., None, :])
        stretched = (weights[0] * (along - across))[..., None] * along_parts
        jacobian = ((weights[0] * across) @ projections.flatten(1)).unflatten(-1, identity.shape)
        return value, jacobian + stretched.mT @ along_parts

    def call_and_pullback(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Product]:
        coordinates, unit, across, along = self._profiles(x)

        def product(vector: Tensor, *, create_graph: bool) -> Tensor:  # the Jacobian is symmetric
            with graph_if(create_graph):
                moved = self._coordinates(vector)
                radial = (along - across) * self._summed(unit * moved)
                return self._event(self._spread(weights[0] * across) * moved + self._spread(weights[0] * radial) * unit)

        return self._event(self._spread(weights[0] * across) * coordinates), product

    def _profiles(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The coordinates of x, those over the radius r of their part, and for each part g(r) / r and g'(r)."""
        coordinates = self._coordinates(x)
        radii = self._summed(coordinates.square()).clamp_min(_LEAST_SQUARE).sqrt()
        g, slope = self.splines(radii, torch.arange(len(self.parts), device=x.device))
        return coordinates, coordinates / self._spread(radii), g / radii, slope

    def _coordinates(self, x: Tensor) -> Tensor:
        return x if len(self.parts) == 1 else self.parts.basis.coordinates(x)

    def _event(self, coordinates: Tensor) -> Tensor:
        return coordinates if len(self.parts) == 1 else self.parts.basis.event(coordinates)

    def _indicator(self, like: Tensor) -> Tensor:
        """Which part a coordinate is of, as zeros and ones of shape ``(d, parts)``."""
        return (self.part_of[:, None] == torch.arange(len(self.parts), device=self.part_of.device)).to(like.dtype)

    def _summed(self, coordinates: Tensor) -> Tensor:
        """The sum over the coordinates of each part."""
        if len(self.parts) == 1:
            return coordinates.sum(-1, keepdim=True)
        return coordinates @ self._indicator(coordinates)

    def _spread(self, values: Tensor) -> Tensor:
        """The value of each part, for all its coordinates."""
        return values if len(self.parts) == 1 else values.index_select(-1, self.part_of)
