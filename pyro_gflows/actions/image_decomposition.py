"""Isotypic decomposition of images: that of each field on each orbit of pixels, put together."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.actions.components import Decomposition
from pyro_gflows.actions.decomposition import decompose, merge
from pyro_gflows.actions.groups import EnumerableGroup
from pyro_gflows.actions.orbits import connected_components
from pyro_gflows.actions.representations import MatrixRepresentation, Representation, permutation_matrices

__all__ = ["image_isotypes"]


def image_isotypes(
    group: EnumerableGroup,
    fields: Sequence[Representation],
    targets: Tensor,
    event_shape: torch.Size,
    *,
    too_large: str | None = None,
) -> Decomposition:
    """The isotypic components of images (C, H, W).

    An image is a direct sum of small representations, one for each field on each orbit of pixels. Few of them differ,
    and each is decomposed once.

    Args:
        group: acts on pixels and channels.
        fields: how it acts on the channels of each field.
        targets: to which pixel each element sends each pixel, shape ``(|G|, H * W)``.
        event_shape: (C, H, W).
        too_large: why dense bases are not given; None: they are.
    """
    elements, orbits = group.elements(), connected_components(targets)
    position = torch.empty(targets.shape[-1], dtype=torch.int64)
    for orbit in orbits:
        position[orbit] = torch.arange(len(orbit))
    within = position[targets]
    moves = [within[:, orbit] for orbit in orbits]
    known: dict[tuple[Representation, bytes], Decomposition] = {}
    parts, places, labels = [], [], []
    start = 0
    for label, field in enumerate(fields):
        channels = (start + torch.arange(field.size))[:, None] * targets.shape[-1]
        for orbit, move in zip(orbits, moves, strict=True):
            key = (field, move.numpy().tobytes())
            if key not in known:
                known[key] = decompose(_on_orbit(group, field.matrices(elements), move))
            parts.append(known[key])
            places.append((channels + orbit).flatten())
            labels.append(label)
        start += field.size
    return merge(parts, places, event_shape, labels=labels, too_large=too_large)


def _on_orbit(group: EnumerableGroup, channels: Tensor, move: Tensor) -> Representation:
    """A field on one orbit of pixels."""
    table = channels[:, :, None, :, None] * permutation_matrices(move)[:, None, :, None, :]
    return MatrixRepresentation(group, table.flatten(3, 4).flatten(1, 2), name="field on an orbit")
