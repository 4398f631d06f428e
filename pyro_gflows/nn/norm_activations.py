"""Activations for any action on vectors, which scale each irrep copy by a function of norms.

An irrep is a smallest building block of an action. The norm of an irrep copy is invariant under the group, so that
scaling the copy by a function of norms is equivariant. As in ``activations.py``, ``lipschitz`` is a constant that holds
for all weights, or ``inf`` where no finite constant does.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.activations import Activation
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.isotypic import IsotypicBasis
from pyro_gflows.nn.radial import safe_norm
from pyro_gflows.serialization.registry import registered

__all__ = ["GatedNorm", "SoftThresholdNorm"]


class _IrrepWise(Activation):
    """The base class of activations that scale each irrep copy by a function of norms."""

    _copy: Tensor

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        if action.event_dim != 1:
            raise ValueError(f"{type(self).__name__} needs vectors, got {action}; on images use pointwise activations")
        isotypes = action.decomposition
        self.basis = IsotypicBasis.of(isotypes, action.numel)
        self._shapes = [(isotype.multiplicity, isotype.dim) for isotype in isotypes]
        self.copies = sum(isotype.multiplicity for isotype in isotypes)
        sizes = torch.tensor([d for m, d in self._shapes for _ in range(m)])
        self.register_buffer("_copy", torch.arange(self.copies).repeat_interleave(sizes), persistent=False)

    def _scaled(self, x: Tensor, scale: Tensor) -> Tensor:
        """The vector x with each irrep copy multiplied by its factor in ``scale``, of shape ``batch + (copies,)``."""
        return self.basis.event(self.basis.coordinates(x) * scale.index_select(-1, self._copy))

    def _norms(self, x: Tensor) -> Tensor:
        norms = [
            safe_norm(part.unflatten(-1, shape)).squeeze(-1)
            for part, shape in zip(self.basis.split(x), self._shapes, strict=True)
        ]
        return torch.cat(norms, -1)

    def extra_repr(self) -> str:
        return f"Lipschitz {self.lipschitz:g}"


@registered
class SoftThresholdNorm(_IrrepWise):
    r"""A smoothed soft threshold of the norm :math:`r = \|x\|` of each irrep copy; 1-Lipschitz.

    An irrep is a smallest building block of an action, such as one vector or one scalar; the group preserves its norm.
    This is the default activation of residual branches where the group does more than permute coordinates.

    .. math:: x \mapsto \frac{x}{r} \left(\sqrt{r^2 + b^2} - b\right), \qquad b > 0 \text{ learnable}

    The slope of the new norm in r and the ratio of the new norm to r are both at most 1. Vectors much shorter than b
    are nearly mapped to zero. The map takes ``batch_shape + (dim,)`` to the same shape.

    Args:
        action: How the group acts on vectors.

    Raises:
        ValueError: If the action is not on vectors.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> SoftThresholdNorm(VectorAction.space("SO(3)"))(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """

    lipschitz = 1.0

    def __init__(self, action: LinearAction) -> None:
        super().__init__(action)
        self.raw_threshold = nn.Parameter(torch.linspace(-2.0, 2.0, self.copies))

    def forward(self, x: Tensor) -> Tensor:
        threshold = nn.functional.softplus(self.raw_threshold)
        radius = self._norms(x)
        # (sqrt(r^2 + b^2) - b) / r, in a form that does not cancel
        return self._scaled(x, radius / ((radius.square() + threshold.square()).sqrt() + threshold))

    def call_and_push(self, x: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
        threshold, radius = nn.functional.softplus(self.raw_threshold), self._norms(x)
        root = (radius.square() + threshold.square()).sqrt()
        scale = radius / (root + threshold)
        point, across = self.basis.coordinates(x), self.basis(tangents) @ tangents
        unit = (point / radius.index_select(-1, self._copy)).unsqueeze(-1)
        # how fast the norm of each copy grows along each tangent, times the derivative of the scale and the norm
        along = unit * across
        growth = along.new_zeros(*along.shape[:-2], self.copies, along.shape[-1]).index_add(-2, self._copy, along)
        growth = growth * (radius * threshold / (root * (root + threshold))).unsqueeze(-1)
        pushed = scale.index_select(-1, self._copy).unsqueeze(-1) * across
        pushed = pushed + unit * growth.index_select(-2, self._copy)
        return self._scaled(x, scale), self.basis(tangents).T @ pushed


@registered
class GatedNorm(_IrrepWise):
    r"""An equivariant activation: each block of features times a gate, which is a function of the norms of all blocks.

    A block is one copy of an irreducible representation (irrep), a smallest building block of an action: one vector, or
    one scalar. The group preserves its norm, so the gates are invariant. This is the default activation of the networks
    in coupling layers (``conditioner``) where the group does more than permute coordinates. Block a is mapped as

    .. math:: x_a \mapsto \sigma\Big(b_a + \sum_c w_{ac} |x_c|\Big)\, x_a

    with the logistic function :math:`\sigma`. Invariant features also gain :math:`\sum_c v_{ac} |x_c|`, by which a
    network makes invariant features from vectors. The map is not Lipschitz, since each gate depends on the other
    blocks, so it does not suit the branches of residual layers. It maps ``batch_shape + (dim,)`` to the same shape.

    Args:
        action: How the group acts on vectors.
        labels: For autoregressive networks: one integer for each block, which then reads only blocks with a smaller or
            an equal label. None lets every block read all.

    Raises:
        ValueError: If the action is not on vectors.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> GatedNorm(VectorAction.space("SO(3)"))(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """

    lipschitz = math.inf
    mask: Tensor | None

    def __init__(self, action: LinearAction, *, labels: Sequence[int] | None = None) -> None:
        super().__init__(action)
        invariants = action.invariants()
        self.gate = nn.Linear(self.copies, self.copies)
        self.feed = nn.Parameter(torch.randn(len(invariants), self.copies) / (3 * self.copies) ** 0.5)
        self.invariants = FixedBasis(invariants)
        allowed = None
        if labels is not None:
            order = torch.tensor([labels[field] for isotype in action.decomposition for field in isotype.labels])
            allowed = order[:, None] >= order
        self.register_buffer("mask", allowed, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        norms = self._norms(x)
        gate: Tensor = self.gate.weight
        feed: Tensor = self.feed
        if self.mask is not None:  # the invariants are the first copies
            gate, feed = gate * self.mask, feed * self.mask[: len(feed)]
        gates = torch.sigmoid(nn.functional.linear(norms, gate, self.gate.bias))
        return self._scaled(x, gates) + nn.functional.linear(norms, feed) @ self.invariants(x)
