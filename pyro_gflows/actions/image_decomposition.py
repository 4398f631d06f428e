"""Isotypic decomposition of images: that of each field on each orbit of pixels, put together."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.actions.decomposition import Isotype, decompose, merge
from pyro_gflows.actions.groups import EnumerableGroup
from pyro_gflows.actions.orbits import connected_components
from pyro_gflows.actions.representations import MatrixRepresentation, Representation, permutation_matrices

__all__ = ["image_isotypes"]


def image_isotypes(group: EnumerableGroup, fields: Sequence[Representation], targets: Tensor) -> list[Isotype]:
    """The isotypic components of images (C, H, W), flattened.

    An image is a direct sum of small representations, one for each field on each orbit of pixels. Few of them differ,
    and each is decomposed once.

    Args:
        group: acts on pixels and channels.
        fields: how it acts on the channels of each field.
        targets: to which pixel each element sends each pixel, shape ``(|G|, H * W)``.
    """
    elements, orbits = group.elements(), connected_components(targets)
    parts, order, owner = [], [], []
    start = 0
    for label, field in enumerate(fields):
        for orbit in orbits:
            position = torch.zeros(targets.shape[-1], dtype=torch.int64)
            position[orbit] = torch.arange(len(orbit))
            pixels = permutation_matrices(position[targets[:, orbit]])
            table = (field.matrices(elements)[:, :, None, :, None] * pixels[:, None, :, None, :]).flatten(3, 4)
            parts.append(decompose(MatrixRepresentation(group, table.flatten(1, 2), name="field on an orbit")))
            channel = start + torch.arange(field.size)
            order.append((channel[:, None] * targets.shape[-1] + orbit).flatten())
            owner.append(label)
        start += field.size
    offsets = list(itertools.accumulate((len(place) for place in order), initial=0))[:-1]
    place = torch.cat(order).argsort()
    return [
        dataclasses.replace(
            isotype, basis=isotype.basis[..., place], labels=tuple(owner[label] for label in isotype.labels)
        )
        for isotype in merge(parts, offsets, start * targets.shape[-1])
    ]
