"""An invariant flow of a set of points of the plane, with a latent vector of the set, built from public layers."""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from benchmarks.cloud_lists import SPLINE
from pyro_gflows.actions import CoordinateSplit, LinearAction, RowsAction
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.flows import AugmentedFlow, EquivariantFlow, augment
from pyro_gflows.transforms import GAffine, GCoupling

__all__ = ["LIMIT", "Histogram", "RowTable", "set_flow"]

LIMIT = 2.6  # half the side of the square with all points, with a margin, in units of 6 pixels


def _cells(x: Tensor, cells: int, limit: float) -> tuple[Tensor, Tensor]:
    """The index of the node of a regular grid on [-limit, limit] below x, and the share of the node above it."""
    place = ((x + limit) / (2 * limit) * (cells - 1)).clamp(0, cells - 1 - 1e-4)
    below = place.floor()
    return below.long(), place - below


class LatentHalf(nn.Module):
    """Parameters of one half of the latent vector from the other half, which comes last in the input.

    Args:
        action_in: How the group acts on the points and that half.
        action_out: How it acts on the parameters.
        half: Coordinates of a half.
        width: Hidden units.
    """

    def __init__(self, action_in: LinearAction, action_out: LinearAction, *, half: int, width: int = 64) -> None:
        super().__init__()
        self.half = half
        last = nn.Linear(width, action_out.numel)
        nn.init.zeros_(last.weight)
        self.layers = nn.Sequential(nn.Linear(half, width), nn.SiLU(), last)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x[..., -self.half :])
        return found


class RowTable(nn.Module):
    """Parameters of one coordinate of every point, from its other coordinate and the latent vector of the set.

    The latent vector gives a table of parameters at nodes along the other coordinate; a point reads it in between, by
    linear interpolation. With one node the parameters are the same for all points. So the network is equivariant, and
    costs little for each point.

    Args:
        action_in: How the group acts on the other coordinate of all points and the latent vector.
        action_out: How it acts on the parameters: fields of rows.
        points: The number of points.
        width: Hidden units.
        nodes: The number of nodes.
    """

    def __init__(
        self, action_in: LinearAction, action_out: LinearAction, *, points: int, width: int, nodes: int
    ) -> None:
        super().__init__()
        self.points, self.nodes = points, nodes
        table = nn.Linear(width, nodes * (action_out.numel // points))
        nn.init.normal_(table.weight, std=0.01)
        nn.init.zeros_(table.bias)
        latent = action_in.numel - points
        self.layers = nn.Sequential(nn.Linear(latent, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), table)

    def forward(self, x: Tensor) -> Tensor:
        other, latent = x[..., : self.points], x[..., self.points :]
        table = self.layers(latent).unflatten(-1, (self.nodes, -1))
        if self.nodes == 1:
            return table.expand(*table.shape[:-2], self.points, -1).mT.flatten(-2)
        below, share = _cells(other, self.nodes, LIMIT)
        index = below[..., None].expand(*below.shape, table.shape[-1])
        rows = torch.lerp(table.gather(-2, index), table.gather(-2, index + 1), share[..., None])
        return rows.mT.flatten(-2)  # field by field, each with a row for every point


class Histogram(nn.Module):
    """A deep set: an invariant network that reads how many points are near each node of a square grid.

    Args:
        action_in: How the group acts on the first coordinates of all points and on the second.
        action_out: How it acts on the output, which is invariant.
        width: Hidden units.
        cells: Nodes along each side of the grid.
        limit: Half the side of the grid.
    """

    def __init__(
        self, action_in: LinearAction, action_out: LinearAction, *, width: int, cells: int = 14, limit: float = 2.0
    ) -> None:
        super().__init__()
        self.cells, self.limit = cells, limit
        last = nn.Linear(width, action_out.numel)
        self.layers = nn.Sequential(
            nn.Linear(cells * cells, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), last
        )

    def forward(self, x: Tensor) -> Tensor:
        (column, right), (row, up) = (_cells(part, self.cells, self.limit) for part in x.chunk(2, -1))
        counts = x.new_zeros(*x.shape[:-1], self.cells**2)
        for i, one in ((0, 1 - right), (1, right)):
            for j, other in ((0, 1 - up), (1, up)):
                counts = counts.scatter_add(-1, column + i + self.cells * (row + j), one * other)
        found: Tensor = self.layers(counts)
        return found


def set_flow(points: int, *, latent: int = 24, width: int = 160, bins: int = 12, nodes: int = 28) -> AugmentedFlow:
    """A density of sets: points that are independent once a latent vector of the set is drawn.

    The latent vector a is padding that no permutation changes. Base to data: couplings of the halves of a, then y of
    every point by a spline that reads a, then x by one that reads a and y. An event holds x of all points, then y of
    all points.

    Args:
        points: The number of points.
        latent: Coordinates of the latent vector, an even number.
        width: Hidden units.
        bins: Pieces of each spline.
        nodes: Nodes of the table of splines along y.
    """
    coordinate = RowsAction(points)
    plane, half = coordinate.direct_sum(coordinate), latent // 2
    padding = plane.trivial_fields(latent)
    action = plane.direct_sum(padding)
    x, y = range(points), range(points, 2 * points)
    halves = [range(2 * points + start, 2 * points + start + half) for start in (0, half)]
    split = CoordinateSplit(action, [x, y, *halves])
    # the half that is read comes last: the other one has its place before it in the second split
    exchanged = CoordinateSplit(action, [x, y, *halves[::-1]])
    layers = [
        GCoupling(action, split=one, transformed=2, network=partial(LatentHalf, half=half))
        for one in (split, exchanged) * 2
    ]
    spline = partial(SPLINE, bins=bins, limit=LIMIT)
    for transformed, count in ((1, 1), (0, nodes)):
        table = partial(RowTable, points=points, width=width, nodes=count)
        layers.append(GCoupling(action, split=split, transformed=transformed, transformer=spline, network=table))
    encoder = GAffine(padding, context_action=plane, network=partial(Histogram, width=128))
    return augment(
        EquivariantFlow(InvariantNormal(action), layers), padding=EquivariantFlow(InvariantNormal(padding), [encoder])
    )
