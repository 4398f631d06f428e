r"""Activations of any representation: each irrep copy scaled by a function of norms, with its Lipschitz constant.

As in ``activations.py``, ``lipschitz`` is a constant that holds for all weights, ``inf`` where there is none.
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
    """Base of activations that scale each irrep copy by a function of its norm."""

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
        """Multiply each irrep copy of x by its number; ``scale`` has shape batch + (copies,)."""
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
    r"""The soft threshold of each irrep copy's norm r = \|x\|, smoothed; 1-Lipschitz.

    .. math:: x \mapsto \frac{x}{r} \left(\sqrt{r^2 + b^2} - b\right), \qquad b > 0 \text{ learnable}

    The new norm's slope in r and its ratio to r are both at most 1; b is where small vectors begin to vanish.

    Args:
        action: vectors, of any representation.

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


@registered
class GatedNorm(_IrrepWise):
    r""":math:`x_a \mapsto \sigma(b_a + \sum_c w_{ac} |x_c|)\, x_a` on each irrep copy a; invariants also gain
    :math:`\sum_c v_{ac} |x_c|`, which is how a network makes invariant numbers from vectors.

    Not Lipschitz for free weights, so not for residual branches.

    Args:
        action: vectors, of any representation.
        labels: None, or one integer for each field: a copy then reads only copies of a smaller or equal label.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> GatedNorm(VectorAction.space("SO(3)"))(torch.zeros(5, 3)).shape
        torch.Size([5, 3])
    """

    lipschitz = math.inf
    looks_back: Tensor | None

    def __init__(self, action: LinearAction, *, labels: Sequence[int] | None = None) -> None:
        super().__init__(action)
        invariants = action.invariants()
        self.gate = nn.Linear(self.copies, self.copies)
        self.feed = nn.Parameter(torch.randn(len(invariants), self.copies) / (3 * self.copies) ** 0.5)
        self.invariants = FixedBasis(invariants)
        mask = None
        if labels is not None:
            order = torch.tensor([labels[field] for isotype in action.decomposition for field in isotype.labels])
            mask = order[:, None] >= order
        self.register_buffer("looks_back", mask, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        norms = self._norms(x)
        gate: Tensor = self.gate.weight
        feed: Tensor = self.feed
        if self.looks_back is not None:  # the invariants are the first copies
            gate, feed = gate * self.looks_back, feed * self.looks_back[: len(feed)]
        gates = torch.sigmoid(nn.functional.linear(norms, gate, self.gate.bias))
        return self._scaled(x, gates) + nn.functional.linear(norms, feed) @ self.invariants(x)
