"""The images of waves on a torus under a group."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.actions import TorusAction
from pyro_gflows.groups import IsometryTable
from pyro_gflows.nn.harmonics import shortest_frequencies
from pyro_gflows.numerics.integer_lattices import Row

__all__ = ["frequency_images", "one_of_each_orbit"]


def frequency_images(action: TorusAction, frequency: Row) -> tuple[Tensor, Tensor]:
    r"""The different phases :math:`\langle k, g\,x\rangle` of the images of x under all group elements g.

    Under :math:`g\,x = M x + a` the phase :math:`\langle k, x\rangle` becomes :math:`\langle M^T k, x\rangle + \langle
    k, a\rangle`. Each of them occurs for equally many elements.

    Args:
        action: How the group acts on angles.
        frequency: k, an integer vector such that pure translations of the group fix k . x.

    Returns:
        The vectors :math:`M^T k`, of shape ``(m, d)`` for m different phases, and the angles
        :math:`\langle k, a\rangle`, of shape ``(m,)``, both in float64.

    Example:
        >>> vectors, angles = frequency_images(TorusAction.point_group("C4"), (1, 0))
        >>> vectors.long().tolist()
        [[-1, 0], [0, -1], [0, 1], [1, 0]]
    """
    maps = action.maps
    if not isinstance(maps, IsometryTable):  # all elements are translations, which fix the phase
        found, denominator = [(*frequency, 0)], 1
    else:
        k, denominator = torch.tensor(frequency, device="cpu"), maps.denominator
        steps = (maps.steps @ k) % denominator
        found = sorted({tuple(row) for row in torch.cat([k @ maps.matrices, steps.unsqueeze(1)], 1).tolist()})
    rows = torch.tensor(found, dtype=torch.float64, device="cpu")
    return rows[:, :-1], rows[:, -1] * (2 * math.pi / denominator)


def one_of_each_orbit(action: TorusAction, count: int) -> tuple[Row, ...]:
    """The shortest frequencies that the translations of a group fix, of which no two are images of each other.

    A frequency and its negative count as one.

    Args:
        action: How the group acts on angles.
        count: How many.

    Raises:
        ValueError: If the translations fix only very long frequencies.

    Example:
        >>> one_of_each_orbit(TorusAction.point_group("D4"), 5)
        ((0, 1), (1, -1), (0, 2), (1, -2), (2, -2))
    """
    searched = count
    while True:
        seen: set[Row] = set()
        found = []
        for k in shortest_frequencies(action, searched):
            if k not in seen:
                found.append(k)
                images = frequency_images(action, k)[0].long()
                seen.update(tuple(image) for image in torch.cat([images, -images]).tolist())
        if len(found) >= count:
            return tuple(found[:count])
        searched *= 2
