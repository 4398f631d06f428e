"""Isotypic decomposition of images: that of each field on each orbit of pixels, put together, or waves."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_gflows.actions.base import LinearAction
from pyro_gflows.actions.fourier import FourierDecomposition
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.decomposition import decompose, merge
from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.groups.orbits import connected_components
from pyro_gflows.groups.representations import (
    MatrixRepresentation,
    Representation,
    TrivialRepresentation,
    permutation_matrices,
)
from pyro_gflows.groups.wallpaper import WallpaperGroup

__all__ = ["decompose_image", "image_isotypes"]

_LARGEST_DENSE = 512  # entries of an event
_LARGEST_LISTED = 2**24  # entries of the matrices of all elements


def decompose_image(action: LinearAction, targets: Callable[[], Tensor]) -> Decomposition:
    """The isotypic components of an action on images (C, H, W).

    Waves under translations, where channels stay as they are and, if there is a point group, shifts are by single
    pixels; but small images under translations alone keep the bases that weights of before refer to.

    Args:
        action: how the group acts on images.
        targets: gives the pixel to which each element sends each pixel, shape ``(|G|, H * W)``.

    Raises:
        ValueError: translations with a point group that are too many for the average over all of them.
    """
    group, too_large = require_enumerable(action.group), None
    if action.numel > _LARGEST_DENSE:
        too_large = (
            f"the basis of an isotypic component of an image is given for at most {_LARGEST_DENSE} numbers, got "
            f"{action.numel} in {action}; use layers on fields, such as convolutions, or isotype.project(x), which "
            "needs no basis; isotype.dense_basis() computes it all the same"
        )
    if not isinstance(group, WallpaperGroup):
        return image_isotypes(group, action.fields, targets(), action.event_shape, too_large=too_large)
    if group.point_group.order == 1:
        if too_large is not None:
            return FourierDecomposition(action, group.shifts, step=group.step, too_large=too_large)
        return image_isotypes(group, action.fields, targets(), action.event_shape)
    if group.step == 1 and set(action.fields) == {TrivialRepresentation(group.point_group)}:
        return FourierDecomposition(action, group.shifts, point_group=group.linear, too_large=too_large)
    return image_isotypes(group, _whole_fields(action, group), targets(), action.event_shape, too_large=too_large)


def _whole_fields(action: LinearAction, group: WallpaperGroup) -> list[Representation]:
    """The fields as representations of the whole group, in which shifts leave channels as they are."""
    if group.order * action.event_shape[-2:].numel() ** 2 > _LARGEST_LISTED:
        raise ValueError(
            f"the isotypic components of {action} would be computed from a matrix for each of its {group.order} "
            "elements; use layers on fields, such as convolutions, or translations without a point group"
        )
    point = group.project(group.elements())
    whole = {field: MatrixRepresentation(group, field.matrices(point), name=field.name) for field in set(action.fields)}
    return [whole[field] for field in action.fields]


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
