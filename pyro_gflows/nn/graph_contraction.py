"""GraphContraction: a residual branch on particles with messages along their differences, which is no gradient."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import LinearAction, ParticleAction, VectorAction
from pyro_gflows.nn.contraction import Contraction
from pyro_gflows.nn.lipschitz_linear import LipschitzLinear
from pyro_gflows.nn.module_lists import each
from pyro_gflows.nn.pair_means import PairMeans
from pyro_gflows.serialization.registry import registered

__all__ = ["GraphContraction"]


@registered
class GraphContraction(Contraction):
    r"""A contraction on configurations of particles, in which they read each other along their differences.

    It is the branch f of a residual layer x + f(x) on particles. A sum over pairs of radial forces is the gradient of a
    potential, so that its Jacobian is symmetric, and it knows pairs only. This branch composes such sums, with linear
    maps between them: the force on a particle depends on where the neighbors of its neighbors are, and the Jacobian is
    a product of different matrices, which is not symmetric.

    Every particle holds ``width`` vectors h, which start as multiples of its position. Each of ``depth`` rounds takes
    means over pairs (``PairMeans``), with the angle :math:`\theta_c` between what a vector was and what it reads:

    .. math:: h \mapsto A\,(\cos\theta_c\,h_c,\ \sin\theta_c\,P_c(h_c))_c, \qquad
        P_c(h)_i = \frac1n \sum_j s_c(|h_i - h_j|)\,\frac{h_i - h_j}{|h_i - h_j|}

    Each P_c is 1-Lipschitz, so each pair of cosine and sine is, and the matrices A, which mix the vectors of a
    particle, have norm at most 1. The last one, from ``width`` vectors to the force, has norm at most the bound. So
    :math:`|f(x) - f(y)| \le c\,|x - y|` for all weights. The center of mass of f(x) is 0 if that of x is.

    Args:
        action: How the group acts on the input: ``particles.coordinates``.
        particles: How the group acts on configurations.
        width: The number of vectors of a particle.
        depth: The number of rounds; with 1 the branch is a gradient of pair potentials.
        bound: The constant c, in (0, 1).
        knots: The number of knots of the functions s_c.
        limit: The distance beyond which these are linear.

    Raises:
        TypeError: ``particles`` is not a ParticleAction.
        ValueError: ``action`` is not that on its coordinates, the bound is outside (0, 1), or a size is below 1.

    Example:
        >>> from pyro_gflows import ParticleAction
        >>> particles = ParticleAction(13, 3)
        >>> branch = GraphContraction(particles.coordinates, particles=particles, bound=0.9)
        >>> branch(torch.zeros(5, 36)).shape, bool(branch.lipschitz_bound() <= 0.9 + 1e-6)
        (torch.Size([5, 36]), True)
    """

    def __init__(
        self,
        action: LinearAction,
        *,
        particles: ParticleAction,
        width: int = 8,
        depth: int = 2,
        bound: float = 0.98,
        knots: int = 16,
        limit: float = 6.0,
    ) -> None:
        super().__init__()
        if not isinstance(particles, ParticleAction):
            raise TypeError(f"expected particles to be a ParticleAction, got {type(particles).__name__}")
        if action != particles.coordinates:
            raise ValueError(f"expected the coordinates of the particles, {particles.coordinates}, got {action}")
        if not 0 < bound < 1:
            raise ValueError(f"expected a Lipschitz bound in (0, 1), got {bound}")
        if width < 1 or depth < 1:
            raise ValueError(f"expected width >= 1 and depth >= 1, got {width} and {depth}")
        self.action, self.particles, self.bound = action, particles, bound
        self.width, self.depth = width, depth
        # a map of norm 1 from one vector to many makes each of them small: by the root of their number
        scale = width**-0.5
        self.means = nn.ModuleList(
            PairMeans(particles, width, knots=knots, limit=limit, scale=scale) for _ in range(depth)
        )
        self.angles = nn.Parameter(torch.full((depth, width), 0.25 * torch.pi))
        widths = [*[width] * (depth - 1), 1]
        self.first = _matrix(1, width, 1.0)
        self.matrices = nn.ModuleList(
            _matrix(2 * width, count, bound if round_ == depth - 1 else 1.0) for round_, count in enumerate(widths)
        )

    def forward(self, x: Tensor) -> Tensor:
        """The force f(x), in coordinates.

        Args:
            x: Coordinates of configurations, shape ``batch_shape + action.event_shape``.
        """
        h = self.first(self.particles.from_coordinates(x)[..., None])
        for means, matrix, angle in zip(self.means, self.matrices, self.angles.unbind(), strict=True):
            h = matrix(torch.cat([angle.cos() * h, angle.sin() * means(h)], -1))
        return self.particles.to_coordinates(h.squeeze(-1))

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights: the product of the matrices' norms."""
        matrices = [self.first, *each(self.matrices, LipschitzLinear)]
        return torch.stack([matrix.lipschitz_bound() for matrix in matrices]).prod()

    def extra_repr(self) -> str:
        return f"{self.particles}, width={self.width}, depth={self.depth}, Lipschitz bound {self.bound:g}"


def _matrix(count_in: int, count_out: int, bound: float) -> LipschitzLinear:
    """Any matrix whose norm is at most the bound."""
    actions = [VectorAction.trivial("C1", copies=count) for count in (count_in, count_out)]
    return LipschitzLinear(actions[0], actions[1], bound=bound, bias=False)
