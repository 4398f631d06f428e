"""Equivariant linear maps between vectors with a bound of their norm."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.kernel import LipschitzLayer
from pyro_gflows.nn.linear import EquivariantLinear
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.numerics.spectral import spectral_norms
from pyro_gflows.serialization.registry import registered

__all__ = ["LipschitzLinear"]


@registered
class LipschitzLinear(EquivariantLinear, LipschitzLayer):
    r"""An equivariant linear map whose norm is at most ``bound`` for all weights.

    It is the linear layer of a residual branch with a certified Lipschitz constant. The map acts on each isotypic
    component (all copies of one irrep) by a block. Each block is divided by :math:`\max(1, \sigma_{max}/c)`, where
    :math:`\sigma_{max}` is its largest singular value. Since the components are orthogonal, the largest norm of a block
    is exactly the norm of the map.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output.
        bound: The bound c.
        bias: Whether to learn a shift along the invariant directions of the output.

    Raises:
        ValueError: As for EquivariantLinear, or if the bound is not positive and finite.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> action = VectorAction.regular("C4", copies=4)
        >>> bool(LipschitzLinear(action, action, bound=0.9).lipschitz_bound() <= 0.9 + 1e-6)
        True
    """

    def __init__(
        self, action_in: LinearAction, action_out: LinearAction, *, bound: float = 1.0, bias: bool = True
    ) -> None:
        super().__init__(action_in, action_out, bias=bias)
        if not 0 < bound < float("inf"):
            raise ValueError(f"expected a positive finite bound, got {bound}")
        self.bound = bound

    def blocks(self) -> list[Tensor]:
        blocks = super().blocks()
        if not blocks:
            return []
        shares = (torch.stack(spectral_norms(blocks)) / self.bound).clamp_min(1.0).reciprocal().unbind()
        return [block * share for block, share in zip(blocks, shares, strict=True)]

    @full_precision
    def lipschitz_bound(self) -> Tensor:
        """The exact norm of the map for the present weights."""
        with torch.no_grad():
            norms = spectral_norms(self.blocks())
        return torch.stack(norms).max() if norms else torch.zeros(())
