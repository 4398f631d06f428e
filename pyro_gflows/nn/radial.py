"""Radial terms of residual branches, which stretch each isotypic part of a vector along itself."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.actions.requirements import require_linear
from pyro_gflows.nn.isotypic import IsotypicParts
from pyro_gflows.nn.splines import SlopeSplines
from pyro_gflows.nn.terms import Term
from pyro_gflows.serialization.registry import registered

__all__ = ["RadialTerm", "safe_norm"]


def safe_norm(x: Tensor) -> Tensor:
    """The norm of x over the last dimension (kept), at least 1e-12, with gradient 0 at the origin instead of NaN."""
    return x.square().sum(-1, keepdim=True).clamp_min(1e-24).sqrt()


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

    def __init__(self, action: LinearAction, *, knots: int = 64, limit: float = 4.0) -> None:
        super().__init__()
        self.action = require_linear(action)
        self.parts = IsotypicParts(action)
        self.splines = SlopeSplines(len(self.parts), knots=knots, limit=limit, odd=True, start=0.0)

    def call_and_jacobian(self, x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
        parts = self.parts.split(x)
        radii = torch.cat([safe_norm(part) for part in parts], -1)
        g, slope = self.splines(radii, torch.arange(len(parts), device=x.device))
        ratio = g / radii
        values, blocks = [], []
        for index, part in enumerate(parts):
            across, along = ratio[..., index, None], slope[..., index, None]
            unit = part / radii[..., index, None]
            values.append(across * part)
            outer = unit[..., :, None] * unit[..., None, :]
            identity = torch.eye(part.shape[-1], dtype=x.dtype, device=x.device)
            blocks.append(across[..., None] * identity + (along - across)[..., None] * outer)
        value = self.parts.merge(values)
        return weights[0] * value, weights[0] * self._assemble(blocks)

    def _assemble(self, blocks: list[Tensor]) -> Tensor:
        if len(blocks) == 1:
            return blocks[0]
        unit = torch.eye(sum(self.parts.sizes), dtype=blocks[0].dtype, device=blocks[0].device)
        rows = self.parts.basis.coordinates(unit).T.split(self.parts.sizes)
        total = [row.T @ block @ row for row, block in zip(rows, blocks, strict=True)]
        return torch.stack(total).sum(0)
