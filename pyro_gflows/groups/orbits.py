"""Orbits of a group on a set of indices, and orbits on channels as fields of a known type."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_array, csgraph
from torch import Tensor

from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.groups.representations import (
    QuotientRepresentation,
    RegularRepresentation,
    Representation,
    TrivialRepresentation,
)

__all__ = ["component_labels", "connected_components", "invariant_sets", "orbit_fields"]

_ZERO = 1e-10


def component_labels(targets: Tensor) -> Tensor:
    """For each index the number of its orbit, where row k of ``targets`` says where the k-th element sends it.

    Example:
        >>> component_labels(torch.tensor([[1, 0, 2, 3]])).tolist()
        [0, 0, 1, 2]
    """
    moves, size = targets.shape
    sources = np.tile(np.arange(size), moves)
    graph = coo_array((np.ones(moves * size, dtype=np.int8), (sources, targets.flatten().numpy())), shape=(size, size))
    return torch.as_tensor(csgraph.connected_components(graph, directed=False)[1], dtype=torch.int64)


def connected_components(targets: Tensor) -> list[Tensor]:
    """The orbits, each sorted, in the order of their smallest indices.

    Example:
        >>> [orbit.tolist() for orbit in connected_components(torch.tensor([[0, 3, 2, 1]]))]
        [[0], [1, 3], [2]]
    """
    labels = component_labels(targets)
    order = torch.argsort(labels, stable=True)
    orbits = torch.split(order, torch.bincount(labels).tolist())
    return sorted(orbits, key=lambda orbit: int(orbit[0]))


def invariant_sets(fields: Sequence[Representation], generators: Tensor) -> list[list[int]]:
    """The smallest sets of coordinates that the fields, side by side, map to themselves (orbits, for permutations).

    Example:
        >>> from pyro_gflows.groups.finite import FiniteGroup
        >>> group = FiniteGroup("Z2", [[0, 1], [1, 0]], [1])
        >>> invariant_sets([RegularRepresentation(group), TrivialRepresentation(group)], group.generators())
        [[0, 1], [2]]
    """
    found: list[list[int]] = []
    start = 0
    for field in fields:
        mixed = (field.matrices(generators).abs() > _ZERO).any(0)
        count, labels = csgraph.connected_components(mixed.numpy(), directed=False)
        sets = [(np.flatnonzero(labels == label) + start).tolist() for label in range(count)]
        found += sorted(sets, key=min)
        start += field.size
    return found


def orbit_fields(group: EnumerableGroup, targets: Tensor) -> tuple[Tensor, list[Representation]]:
    """Permuted channels as trivial, regular and quotient fields: ``(order, fields)``.

    A transitive permutation representation is a quotient by a stabilizer; ``order`` lists the channels so that those of
    one orbit stand together, in the order in which that quotient counts its cosets.

    Args:
        group: the group.
        targets: where each element sends each channel, shape ``(|G|, C)``.
    """
    order: list[Tensor] = []
    fields: list[Representation] = []
    for orbit in connected_components(targets):
        images = targets[:, orbit[0]]
        stabilizer = torch.nonzero(images == orbit[0]).flatten()
        # cosets are counted by their smallest member, and so are the images of the orbit's first channel
        first = [int(torch.nonzero(images == channel)[0]) for channel in orbit]
        order.append(orbit[torch.tensor(first).argsort()])
        if len(orbit) == 1:
            fields.append(TrivialRepresentation(group))
        elif len(orbit) == group.order:
            fields.append(RegularRepresentation(group))
        else:
            fields.append(QuotientRepresentation(group, stabilizer.tolist()))
    return torch.cat(order), fields
