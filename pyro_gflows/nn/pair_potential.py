"""PairPotential: invariant potentials of particles, a sum over pairs, with a Hessian above -1 by construction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from pyro_gflows.actions import ParticleAction
from pyro_gflows.nn.expanding_splines import ExpandingSplines
from pyro_gflows.nn.potential import Potential
from pyro_gflows.nn.radial import safe_norm
from pyro_gflows.serialization.registry import registered

__all__ = ["PairPotential"]


@registered
class PairPotential(Potential):
    r"""A potential of particles: a learnable radial function for each kind of pair, and two radial terms of one body.

    It is the potential of :class:`~pyro_gflows.transforms.GPairPotential`. Its value depends on distances only, so
    rotations, reflections, translations, and permutations of the particles of one species leave it as it is.

    .. math:: V(x) = \sum_{i < j} G_{s_i s_j}(|x_i - x_j|) + \sum_i H_{s_i}(|x_i - \bar x|) + K(|x - \bar x|)

    Here :math:`s_i` is the species of particle i, :math:`\bar x` the center of mass, and :math:`|x - \bar x|` the norm
    of the whole configuration. The derivatives g, h and k of G, H and K are
    :class:`~pyro_gflows.nn.ExpandingSplines`, with :math:`g(0) = h(0) = k(0) = 0`. Their slopes are above
    :math:`-c_1 / n`, :math:`-c_2` and :math:`-c_3` for n particles, and have no upper bound. The positive numbers
    :math:`c_1 + c_2 + c_3 = c` are a learnable split of ``bound``.

    **The bound.** The Hessian of :math:`G(|z|)` has the eigenvalues :math:`g'(r)` along z and :math:`g(r) / r` across.
    The second is a mean of slopes, so both are at least -b where the slopes are. A pair of particles contributes this
    matrix between the rows of the difference map :math:`x \mapsto x_i - x_j`. So for slopes of at least
    :math:`-b_{kl}` for particles of the species k and l, the Hessian of the sum over pairs is at least minus the
    Laplacian of the complete graph with the weights :math:`b_{s_i s_j}` on its edges. Its largest eigenvalue is n b for
    equal weights b = c_1 / n, and at most n times the largest weight. The other two terms read :math:`x - \bar x`, an
    orthogonal projection of x, so they contribute at least :math:`-c_2` and :math:`-c_3`. Together no eigenvalue of the
    Hessian is below -c, for all weights. :meth:`curvature_bound` evaluates the same sum at the present slopes.

    Args:
        action: How the group acts on the particles, with a center of mass at 0 or a free one.
        knots: The number of knots of each function on [0, limit].
        limit: The distance beyond which the functions are linear, for a pair or between a particle and the center; for
            the norm of the configuration the limit is larger by the square root of n.
        bound: The number c below 1 such that no eigenvalue of the Hessian is below -c.
        one_body: Whether there are the terms H and K, in addition to the pairs.

    Raises:
        TypeError: ``action`` is not a ParticleAction.
        ValueError: There is one particle only, or an argument is out of its range.

    Example:
        >>> potential = PairPotential(ParticleAction((2, 3), 3), knots=8)
        >>> gradient, hessian = potential.call_and_jacobian(torch.randn(7, 5, 3))
        >>> gradient.shape, hessian.shape, len(potential.pairs.theta), potential.curvature_bound().item()
        (torch.Size([7, 5, 3]), torch.Size([7, 15, 15]), 3, 0.0)
    """

    action: ParticleAction
    kind: Tensor
    species: Tensor
    unit_particles: Tensor
    unit_space: Tensor

    def __init__(
        self,
        action: ParticleAction,
        *,
        knots: int = 32,
        limit: float = 8.0,
        bound: float = 0.97,
        one_body: bool = True,
    ) -> None:
        super().__init__()
        if not isinstance(action, ParticleAction):
            raise TypeError(f"expected a ParticleAction such as ParticleAction(4, 2), got {type(action).__name__}")
        if action.n < 2:
            raise ValueError(f"expected at least 2 particles, between which there are pairs, got {action}")
        if not 0 < bound < 1:
            raise ValueError(f"expected 0 < bound < 1, got {bound}")
        self.action, self.bound = action, bound
        count, kind, species = _kinds(action.species)
        self.pairs = ExpandingSplines(count, knots=knots, limit=limit)
        self.particles: ExpandingSplines | None = None
        self.configuration: ExpandingSplines | None = None
        if one_body:
            self.particles = ExpandingSplines(len(action.species), knots=knots, limit=limit)
            self.configuration = ExpandingSplines(1, knots=knots, limit=limit * action.n**0.5)
            self.split = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))
        self.register_buffer("kind", kind, persistent=False)
        self.register_buffer("species", species, persistent=False)
        self.register_buffer("unit_particles", torch.eye(action.n), persistent=False)
        self.register_buffer("unit_space", torch.eye(action.d), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        difference, across, _, _ = self._pairs(x)
        value = (across * difference).sum(-2)
        if self.particles is None:
            return value
        centered, (each, _, _), (whole, _, _) = self._one_body(x)
        return value + _centered((each + whole) * centered)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        difference, across, bend, unit = self._pairs(x)
        value = (across * difference).sum(-2)
        # the blocks of all pairs, in the order particle, coordinate, particle, coordinate
        blocks = unit.mT.unsqueeze(-1) * (bend * unit).unsqueeze(-3)
        blocks = blocks + across.mT.unsqueeze(-1) * self.unit_space.unsqueeze(-2)
        diagonal = blocks.sum(-2)
        if self.particles is None:
            return value, _flat(self._on_diagonal(diagonal) - blocks)
        centered, (each, each_bend, each_unit), (whole, whole_bend, whole_unit) = self._one_body(x)
        value = value + _centered((each + whole) * centered)
        diagonal = diagonal + (each + whole).unsqueeze(-1) * self.unit_space
        diagonal = diagonal + (each_bend * each_unit).unsqueeze(-1) * each_unit.unsqueeze(-2)
        hessian = self._on_diagonal(diagonal) - blocks
        hessian = hessian + (whole_bend * whole_unit)[..., None, None] * whole_unit[..., None, None, :, :]
        hessian = hessian - hessian.mean(-2, keepdim=True)  # the terms of one body do not see the center of mass
        return value, _flat(hessian - hessian.mean(-4, keepdim=True))

    def curvature_bound(self) -> Tensor:
        return self._largest(-1)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant of the gradient of V, for the present weights."""
        return torch.maximum(self._largest(-1), self._largest(1))

    # -- parts --------------------------------------------------------------------------------------------------------
    def _weights(self) -> tuple[Tensor | float, Tensor | float, Tensor | float]:
        """The factors of the functions of a pair, of a particle, and of the configuration."""
        if self.particles is None:
            return self.bound / self.action.n, 0.0, 0.0
        pairs, each, whole = (self.bound * self.split.softmax(0)).unbind()
        return pairs / self.action.n, each, whole

    def _pairs(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """The differences of all ordered pairs, and of their radial functions g(r) / r, g'(r) - g(r) / r and z / r."""
        difference = x.unsqueeze(-2) - x.unsqueeze(-3)
        across, bend, unit = _radial(difference, self.pairs, self.kind)
        weight = self._weights()[0] * (1 - self.unit_particles).unsqueeze(-1)  # no particle is paired with itself
        return difference, weight * across, weight * bend, unit

    def _one_body(self, x: Tensor) -> tuple[Tensor, tuple[Tensor, ...], tuple[Tensor, ...]]:
        """The positions relative to the center of mass, and the radial functions of each and of all of them."""
        assert self.particles is not None and self.configuration is not None
        centered = _centered(x)
        _, weight, whole_weight = self._weights()
        across, bend, unit = _radial(centered, self.particles, self.species)
        each = weight * across, weight * bend, unit
        across, bend, unit = _radial(centered.flatten(-2), self.configuration, 0)
        across, bend = across.unsqueeze(-1), bend.unsqueeze(-1)
        return centered, each, (whole_weight * across, whole_weight * bend, unit.unflatten(-1, self.action.event_shape))

    def _on_diagonal(self, blocks: Tensor) -> Tensor:
        return blocks.unsqueeze(-2) * self.unit_particles[:, None, :, None]

    def _largest(self, sign: int) -> Tensor:
        """An upper bound of the largest eigenvalue of the Hessian times a sign."""
        pairs, each, whole = self._weights()
        edges = pairs * _steepest(self.pairs, sign)[self.kind.squeeze(-1)] * (1 - self.unit_particles)
        bound = torch.linalg.eigvalsh(torch.diag(edges.sum(0)) - edges)[-1]
        if self.particles is not None and self.configuration is not None:
            bound = bound + each * _steepest(self.particles, sign).amax()
            bound = bound + whole * _steepest(self.configuration, sign).amax()
        return bound

    def extra_repr(self) -> str:
        return f"{self.action}, curvature above {-self.bound:g}"


def _kinds(species: Sequence[int]) -> tuple[int, Tensor, Tensor]:
    """The number of kinds of pairs, the kind of each ordered pair, and the species of each particle."""
    of_particle = [index for index, size in enumerate(species) for _ in range(size)]
    numbers: dict[Any, int] = {}
    kind = [
        [0 if i == j else numbers.setdefault((min(a, b), max(a, b)), len(numbers)) for j, b in enumerate(of_particle)]
        for i, a in enumerate(of_particle)
    ]
    return len(numbers), torch.tensor(kind).unsqueeze(-1), torch.tensor(of_particle).unsqueeze(-1)


def _radial(z: Tensor, splines: ExpandingSplines, row: Tensor | int) -> tuple[Tensor, Tensor, Tensor]:
    """For vectors z of norm r the g(r) / r, the g'(r) - g(r) / r, and z / r; they are g'(0), 0 and 0 at the origin."""
    r = safe_norm(z)
    value, slope = splines(r, row)
    across = value / r
    return across, slope - across, z / r


def _steepest(splines: ExpandingSplines, sign: int) -> Tensor:
    """The largest slope times a sign of each function, at least 0."""
    return (sign * splines.slopes()).amax(1).clamp_min(0)


def _centered(x: Tensor) -> Tensor:
    return x - x.mean(-2, keepdim=True)


def _flat(hessian: Tensor) -> Tensor:
    return hessian.flatten(-2).flatten(-3, -2)
