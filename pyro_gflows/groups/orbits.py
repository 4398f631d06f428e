"""Orbits of a group that permutes indices: the sets of indices that group elements send to each other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy.sparse import coo_array, csgraph
from torch import Tensor

from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.groups.permutation_representations import QuotientRepresentation, RegularRepresentation
from pyro_gflows.groups.representations import Representation, TrivialRepresentation

__all__ = ["component_labels", "connected_components", "invariant_sets", "orbit_fields"]


def component_labels(targets: Tensor) -> Tensor:
    """For each index, the number of its orbit.

    Args:
        targets: The index to which each group element sends each index, one row for each element. Generators of the
            group are enough.

    Example:
        >>> component_labels(torch.tensor([[1, 0, 2, 3]])).tolist()
        [0, 0, 1, 2]
    """
    count, size = targets.shape
    sources = np.tile(np.arange(size), count)
    graph = coo_array((np.ones(count * size, dtype=np.int8), (sources, targets.flatten().numpy())), shape=(size, size))
    return torch.as_tensor(csgraph.connected_components(graph, directed=False)[1], dtype=torch.int64)


def connected_components(targets: Tensor) -> list[Tensor]:
    """The orbits as sorted lists of indices, in the order of their smallest indices.

    Args:
        targets: The index to which each group element sends each index, one row for each element.

    Example:
        >>> [orbit.tolist() for orbit in connected_components(torch.tensor([[0, 3, 2, 1]]))]
        [[0], [1, 3], [2]]
    """
    labels = component_labels(targets)
    order = torch.argsort(labels, stable=True)
    orbits = torch.split(order, torch.bincount(labels).tolist())
    return sorted(orbits, key=lambda orbit: int(orbit[0]))


def invariant_sets(fields: Sequence[Representation]) -> list[list[int]]:
    """The smallest sets of coordinates that the group maps to themselves, for fields side by side.

    Where the group permutes coordinates, these sets are its orbits.

    Args:
        fields: The representations by which the group acts on the coordinates, one after the other.

    Example:
        >>> from pyro_gflows.groups.finite import FiniteGroup
        >>> group = FiniteGroup("Z2", [[0, 1], [1, 0]], [1])
        >>> invariant_sets([RegularRepresentation(group), TrivialRepresentation(group)])
        [[0, 1], [2]]
    """
    found: list[list[int]] = []
    start = 0
    for field in fields:
        found += [[index + start for index in one] for one in field.invariant_sets()]
        start += field.size
    return found


def orbit_fields(group: EnumerableGroup, targets: Tensor) -> tuple[Tensor, list[Representation]]:
    """The trivial, regular and quotient fields that permuted channels consist of.

    A group that permutes the channels of one orbit acts as on the cosets of a stabilizer, the subgroup that leaves one
    channel where it is. So each orbit of channels is a quotient field.

    Args:
        group: The group that permutes the channels.
        targets: The channel to which each element sends each channel, shape ``(|G|, C)``.

    Returns:
        ``(order, fields)``: an order of the channels in which the channels of one orbit stand together, as the cosets
        of its quotient are counted, and one field for each orbit.

    Example:
        >>> from pyro_gflows.groups.finite import CyclicGroup
        >>> order, fields = orbit_fields(CyclicGroup(2), torch.tensor([[0, 1, 2], [2, 1, 0]]))
        >>> order.tolist(), fields
        ([0, 2, 1], [regular of C2, trivial of C2])
    """
    order: list[Tensor] = []
    fields: list[Representation] = []
    for orbit in connected_components(targets):
        images = targets[:, orbit[0]]
        stabilizer = torch.nonzero(images == orbit[0]).flatten()
        # cosets are ordered by their smallest element, and the images of the orbit's first channel likewise
        first = [int(torch.nonzero(images == channel)[0]) for channel in orbit]
        order.append(orbit[torch.tensor(first).argsort()])
        if len(orbit) == 1:
            fields.append(TrivialRepresentation(group))
        elif len(orbit) == group.order:
            fields.append(RegularRepresentation(group))
        else:
            fields.append(QuotientRepresentation(group, stabilizer.tolist()))
    return torch.cat(order), fields
