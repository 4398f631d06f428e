"""PairPotential: invariant potentials of particles, a sum over pairs, with a Hessian above -1 by construction."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pyro_gflows.actions import ParticleAction
from pyro_gflows.nn.expanding_splines import ExpandingSplines
from pyro_gflows.nn.potential import Potential
from pyro_gflows.nn.radial import safe_root
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
    Hessian is below -c, for all weights. ``curvature_bound()`` evaluates the same sum at the present slopes.

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
        >>> gradient.shape, hessian.shape, len(potential.radial.theta), potential.curvature_bound().item()
        (torch.Size([7, 5, 3]), torch.Size([7, 15, 15]), 6, 0.0)
    """

    action: ParticleAction
    row: Tensor
    members: Tensor
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
        self.action, self.bound, self.one_body = action, bound, one_body
        n, kinds, row = action.n, *_kinds(action.species)
        self.kinds, members = kinds, torch.ones(1, n * n)  # a particle paired with itself cancels
        if one_body:
            row += [kinds + each for each in _of_particle(action.species)] + [kinds + len(action.species)]
            members = torch.block_diag(members, torch.ones(1, n), torch.ones(1, 1))
            self.split = nn.Parameter(torch.tensor([1.0, 0.0, 0.0]))
        # all functions are one bank, which takes one look-up
        self.radial = ExpandingSplines(max(row) + 1, knots=knots, limit=limit)
        self.register_buffer("row", torch.tensor(row), persistent=False)
        self.register_buffer("members", members, persistent=False)
        self.register_buffer("unit_particles", torch.eye(n), persistent=False)
        self.register_buffer("unit_space", torch.eye(action.d), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        difference, centered = self._vectors(x)
        across = self._radial(difference, centered)[0]
        return self._gradient(difference, centered, across)

    def call_and_jacobian(self, x: Tensor) -> tuple[Tensor, Tensor]:
        difference, centered = self._vectors(x)
        across, bend, r = self._radial(difference, centered)
        value = self._gradient(difference, centered, across)
        across, each, whole = self._apart(across)
        bend, each_bend, whole_bend = self._apart(bend)
        r, each_r, whole_r = self._apart(r)
        # the blocks of all pairs, in the order particle, coordinate, particle, coordinate
        unit = difference / r.unsqueeze(-1)
        blocks = unit.mT.unsqueeze(-1) * (bend.unsqueeze(-1) * unit).unsqueeze(-3)
        blocks = blocks + across[..., None, :, None] * self.unit_space.unsqueeze(-2)
        diagonal = blocks.sum(-2)
        if not self.one_body:
            return value, _flat(self._on_diagonal(diagonal) - blocks)
        # the terms of one body do not see the center of mass: each block stands between two projections
        unit = centered / each_r.unsqueeze(-1)
        own = (each + whole)[..., None, None] * self.unit_space
        own = own + (each_bend.unsqueeze(-1) * unit).unsqueeze(-1) * unit.unsqueeze(-2)
        shared = own / self.action.n
        blocks = (
            blocks + shared.transpose(-3, -2).unsqueeze(-4) + (shared - shared.mean(-3, keepdim=True)).unsqueeze(-2)
        )
        unit = centered / (whole_r * self.action.n**0.5).unsqueeze(-1)
        rank_one = (whole_bend.unsqueeze(-1) * unit)[..., None, None] * unit[..., None, None, :, :]
        return value, _flat(self._on_diagonal(diagonal + own) - blocks + rank_one)

    def curvature_bound(self) -> Tensor:
        return self._largest(-1)

    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant of the gradient of V, for the present weights."""
        return torch.maximum(self._largest(-1), self._largest(1))

    # -- parts --------------------------------------------------------------------------------------------------------
    def _weights(self) -> Tensor:
        """The factors of the functions of a pair, and with terms of one body of a particle and of the configuration."""
        if not self.one_body:
            return self.members.new_full((1,), self.bound / self.action.n)
        pairs, others = (self.bound * self.split.softmax(0)).tensor_split([1])
        return torch.cat([pairs / self.action.n, others])

    def _vectors(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The differences of all ordered pairs, and the positions relative to the center of mass."""
        return x.unsqueeze(-2) - x.unsqueeze(-3), x - x.mean(-2, keepdim=True)

    def _radial(self, difference: Tensor, centered: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The s(r) / r, the s'(r) - s(r) / r, which are s'(0) and 0 at r = 0, and r, of all functions side by side.

        The functions are those of pairs, of particles, and of the configuration, which is K(R) = n S(R / sqrt(n)).
        """
        squares = difference.square().sum(-1).flatten(-2)
        if self.one_body:
            each = centered.square().sum(-1)
            squares = torch.cat([squares, each, each.mean(-1, keepdim=True)], -1)
        r = safe_root(squares)
        value, slope = self.radial(r, self.row)
        weights = self._weights() @ self.members
        across = weights * value / r
        return across, weights * slope - across, r

    def _apart(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Values of functions side by side, as those of pairs, of particles, and of the configuration."""
        n = self.action.n
        return values[..., : n * n].unflatten(-1, (n, n)), values[..., n * n : -1], values[..., -1:]

    def _gradient(self, difference: Tensor, centered: Tensor, across: Tensor) -> Tensor:
        pairs, each, whole = self._apart(across)
        value = (pairs.unsqueeze(-1) * difference).sum(-2)
        if not self.one_body:
            return value
        shift = (each + whole).unsqueeze(-1) * centered
        return value + (shift - shift.mean(-2, keepdim=True))

    def _on_diagonal(self, blocks: Tensor) -> Tensor:
        return blocks.unsqueeze(-2) * self.unit_particles[:, None, :, None]

    def _largest(self, sign: int) -> Tensor:
        """An upper bound of the largest eigenvalue of the Hessian times a sign."""
        steepest = (sign * self.radial.slopes()).amax(1).clamp_min(0)
        weights = self._weights()
        edges = self._apart(weights @ self.members * steepest[self.row])[0]
        bound = torch.linalg.eigvalsh(torch.diag(edges.sum(0)) - edges)[-1]
        if self.one_body:
            bound = bound + weights[1] * steepest[self.kinds : -1].amax() + weights[2] * steepest[-1]
        return bound

    def extra_repr(self) -> str:
        return f"{self.action}, curvature above {-self.bound:g}"


def _of_particle(species: Sequence[int]) -> list[int]:
    """The species of each particle."""
    return [index for index, size in enumerate(species) for _ in range(size)]


def _kinds(species: Sequence[int]) -> tuple[int, list[int]]:
    """The number of kinds of pairs, and the kind of each ordered pair."""
    of_particle = list(enumerate(_of_particle(species)))
    numbers: dict[tuple[int, int], int] = {}
    kind = [
        0 if i == j else numbers.setdefault((min(a, b), max(a, b)), len(numbers))
        for i, a in of_particle
        for j, b in of_particle
    ]
    return len(numbers), kind


def _flat(hessian: Tensor) -> Tensor:
    return hessian.flatten(-2).flatten(-3, -2)
