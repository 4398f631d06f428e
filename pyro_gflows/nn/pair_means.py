"""PairMeans: means over the others of radial functions of differences, with Lipschitz constant 1."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import ParticleAction
from pyro_gflows.nn.splines import SlopeSplines

__all__ = ["PairMeans"]

_LEAST_SQUARE = 1e-24


class PairMeans(nn.Module):
    r"""For the vectors h of n particles, means over pairs of radial functions of their differences; 1-Lipschitz.

    .. math:: P(h)_i = \frac1n \sum_j \Phi(h_i - h_j), \qquad \Phi(e) = s(|e|)\,\frac{e}{|e|}, \qquad s(0) = 0, |s'| < 1

    Let B take the vectors of the particles to the differences of all pairs i < j. Since :math:`\Phi` is odd,
    :math:`P = \frac1n B^T \Phi B`. The Jacobian of :math:`\Phi` has the eigenvalues s' along e and s/\|e\| across it,
    both below 1 in absolute value, and :math:`B^T B = n I - 1 1^T` (the Laplacian of the complete graph) has largest
    eigenvalue n. So the Lipschitz constant of P is at most :math:`\frac1n |B|^2 = 1`. No smaller factor than 1/n would
    do for all s: where s(r) is nearly r, P is nearly the identity on vectors of sum 0. The sum of P(h) over the
    particles is 0.

    Each of ``width`` vectors of a particle has a function s of its own, for each unordered pair of species.

    Args:
        particles: How many particles of each species there are.
        width: The number of vectors of a particle.
        knots: The number of knots of each s.
        limit: The distance beyond which it is linear, in units of ``scale``.
        scale: The typical size of the vectors: the map is scale P(h / scale), which has the same Lipschitz constant.

    Example:
        >>> PairMeans(ParticleAction(4, 2), 3)(torch.zeros(5, 4, 2, 3)).shape
        torch.Size([5, 4, 2, 3])
    """

    row: Tensor

    def __init__(
        self, particles: ParticleAction, width: int, *, knots: int = 16, limit: float = 6.0, scale: float = 1.0
    ) -> None:
        super().__init__()
        self.scale = scale
        kinds = torch.arange(len(particles.species)).repeat_interleave(torch.tensor(particles.species))
        low, high = torch.minimum(kinds[:, None], kinds), torch.maximum(kinds[:, None], kinds)
        pair = low + high * (high + 1) // 2  # the pairs of species with low <= high, one after the other
        count = len(particles.species) * (len(particles.species) + 1) // 2
        self.splines = SlopeSplines(count * width, knots=knots, limit=limit, odd=True, start=0.5)
        self.register_buffer("row", pair[..., None] * width + torch.arange(width), persistent=False)

    def forward(self, h: Tensor) -> Tensor:
        """The means, of the shape of h.

        Args:
            h: Vectors, shape ``batch_shape + (n, d, width)``.
        """
        difference = (h[..., :, None, :, :] - h[..., None, :, :, :]) / self.scale
        length = difference.square().sum(-2).clamp_min(_LEAST_SQUARE).sqrt()
        value, _ = self.splines(length, self.row)
        return self.scale * ((value / length)[..., None, :] * difference).mean(-3)
