"""GraphNetwork: messages between particles along their differences, as parameters of a layer."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.actions import LinearAction, ParticleAction
from pyro_gflows.groups.representations import TrivialRepresentation
from pyro_gflows.groups.row_fields import RowField
from pyro_gflows.nn.graph_layer import GraphLayer, distances, normalized
from pyro_gflows.serialization.registry import registered

__all__ = ["GraphNetwork"]


@registered
class GraphNetwork(nn.Module):
    r"""An equivariant network on particles, in which every particle reads the others by their distances and directions.

    It computes scalars and vectors for each particle, such as the parameters of a coupling layer. A deep set
    (:class:`RowsNetwork`) reads the others only by means over all of them; this network passes messages between all
    pairs, at a cost quadratic in their number. Particle i holds scalars h_i and vectors v_i, which start from its
    species and its position. In each layer

    .. math:: m_{ij} = \phi(h_i, h_j, r_{ij}, v_i \cdot v_j), \quad
        h_i \mapsto h_i + \psi\Big(h_i, \sum_j m_{ij}, |v_i|\Big), \quad
        v_i \mapsto v_i + \sum_j \Big(A\,m_{ij}\,\frac{x_i - x_j}{1 + r_{ij}} + B\,m_{ij}\,v_j\Big)

    where :math:`r_{ij} = |x_i - x_j|`, and :math:`\phi, \psi` are networks of one hidden layer. Scalars depend on inner
    products only, and vectors are sums of vectors times scalars, so every rotation and reflection of space commutes
    with the network; sums over j commute with permutations within a species. So it is equivariant for each group H of
    a :class:`~pyro_gflows.ParticleAction`.

    Args:
        action_in: How the group acts on the input: ``particles.coordinates``.
        action_out: How it acts on the output: a field of scalars of each particle, then one of vectors of each particle
            (``transformer.params_action`` of a :class:`~pyro_gflows.RowStretch`).
        particles: How the group acts on configurations.
        width: The number of scalars of a particle; of its vectors there are a quarter as many, at least two.
        depth: The number of layers.
        start: A factor on the weights of the output before training.

    Raises:
        TypeError: ``particles`` is not a ParticleAction.
        ValueError: The input is not the coordinates of the particles, or the output is not scalars, then vectors.

    Source: Equivariant message passing for the prediction of tensorial properties, arXiv:2102.03150.

    Example:
        >>> from pyro_gflows import ParticleAction, RowStretch
        >>> particles = ParticleAction(4, 2)
        >>> params_action = RowStretch(particles.rows).params_action
        >>> network = GraphNetwork(particles.coordinates, params_action, particles=particles, width=8)
        >>> network(torch.zeros(5, 6)).shape == (5, params_action.numel)
        True
    """

    species: Tensor

    def __init__(
        self,
        action_in: LinearAction,
        action_out: LinearAction,
        *,
        particles: ParticleAction,
        width: int = 32,
        depth: int = 2,
        start: float = 0.1,
    ) -> None:
        super().__init__()
        if not isinstance(particles, ParticleAction):
            raise TypeError(f"expected particles to be a ParticleAction, got {type(particles).__name__}")
        if action_in != particles.coordinates:
            raise ValueError(f"expected the coordinates of the particles, {particles.coordinates}, got {action_in}")
        if width < 2 or depth < 1:
            raise ValueError(f"expected width >= 2 and depth >= 1, got {width} and {depth}")
        self.action_in, self.action_out, self.particles = action_in, action_out, particles
        self.width, self.depth, self.start = width, depth, start
        self._scalars, self._vectors = _counts(action_out, particles)
        kinds = len(particles.species)
        species = torch.eye(kinds)[torch.arange(kinds).repeat_interleave(torch.tensor(particles.species))]
        self.register_buffer("species", species, persistent=False)
        held = max(2, width // 4)
        self.first = nn.Linear(kinds + 1, width)
        self.first_vectors = nn.Parameter(torch.randn(held))
        self.layers = nn.ModuleList(GraphLayer(width, held) for _ in range(depth))
        self.scalars = nn.Linear(width, self._scalars)
        self.mixing = nn.Linear(held, self._vectors, bias=False)
        self.inner_gates, self.gates = nn.Linear(width, held), nn.Linear(width, self._vectors)
        with torch.no_grad():
            for parameter in (*self.scalars.parameters(), *self.mixing.parameters()):
                parameter.mul_(start)

    def forward(self, x: Tensor) -> Tensor:
        """The parameters, shape ``batch_shape + action_out.event_shape``.

        Args:
            x: Coordinates of configurations, shape ``batch_shape + action_in.event_shape``.
        """
        positions = self.particles.from_coordinates(x)
        size = positions.square().sum(-1, keepdim=True).log1p()
        species = self.species.to(size).expand(*size.shape[:-1], -1)
        h = functional.silu(self.first(torch.cat([species, size], -1)))
        v = self.first_vectors * positions[..., None]
        pairs = distances(positions)
        for layer in self.layers:
            h, v = layer(h, v, pairs)
        h = normalized(h)
        gated = v * (1 + self.inner_gates(h).tanh())[..., None, :] / math.sqrt(v.shape[-1])
        vectors = self.mixing(gated) * (1 + self.gates(h).tanh())[..., None, :]
        return torch.cat([self.scalars(h).flatten(-2), vectors.mT.flatten(-3)], -1)

    def extra_repr(self) -> str:
        return f"{self.particles} -> {self.action_out}, width={self.width}, depth={self.depth}"


def _counts(action: LinearAction, particles: ParticleAction) -> tuple[int, int]:
    """The numbers of scalars and of vectors of a particle in the output."""
    fields, position = action.fields, particles.position.fields
    rows = [field for field in fields if isinstance(field, RowField)]
    if len(fields) == len(rows) == 2 and all(field.rows == particles.n for field in rows):
        scalars, vectors = rows
        count = len(vectors.features) // len(position)
        trivial = all(isinstance(feature, TrivialRepresentation) for feature in scalars.features)
        if trivial and vectors.features == position * count and scalars.structure == particles.rows.structure:
            return scalars.width, count
    raise ValueError(
        f"expected an output of scalars of each particle, then vectors of each particle of {particles}, got {action}"
    )
