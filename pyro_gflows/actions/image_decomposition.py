"""Isotypic decomposition of images: by orbits of pixels, or into waves under translations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from pyro_gflows.actions.fourier import FourierDecomposition
from pyro_gflows.actions.linear import LinearAction
from pyro_gflows.groups.base import require_enumerable
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.decomposition import decompose, merge
from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.groups.orbits import connected_components
from pyro_gflows.groups.permutation_representations import permutation_matrices
from pyro_gflows.groups.representations import MatrixRepresentation, Representation, TrivialRepresentation
from pyro_gflows.groups.wallpaper import WallpaperGroup

__all__ = ["decompose_image", "image_isotypes"]

_LARGEST_DENSE = 512  # entries of an event
_LARGEST_LISTED = 2**24  # entries of the matrices of all elements


def decompose_image(action: LinearAction, targets: Callable[[], Tensor]) -> Decomposition:
    """The isotypic components of an action on images (C, H, W).

    Under translations the components are waves, where channels stay as they are and, if there is a point group, shifts
    are by single pixels. Small images under translations alone are an exception: they keep the bases to which the
    weights of earlier files refer.

    Args:
        action: How the group acts on images.
        targets: A function that gives the pixel to which each element sends each pixel, shape ``(|G|, H * W)``.

    Raises:
        ValueError: The group of translations and its point group are too large for an average over all elements.

    Example:
        >>> from pyro_gflows.actions import ImageAction
        >>> action = ImageAction("D4", size=4)
        >>> decompose_image(action, action.grid_permutations).sizes
        [3, 3, 1, 1, 8]
    """
    group, too_large = require_enumerable(action.group), None
    if action.numel > _LARGEST_DENSE:
        too_large = (
            f"the basis of an isotypic component of an image is given for at most {_LARGEST_DENSE} coordinates, got "
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
    """The fields as representations of the whole group, whose shifts leave channels as they are."""
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
    """The isotypic components of images (C, H, W), put together from small representations.

    An image is a direct sum of small representations, one for each field on each orbit of pixels. Only few of these
    differ, and each is decomposed once.

    Args:
        group: The group that acts on pixels and channels.
        fields: The representations by which the group acts on the channels of each field.
        targets: The pixel to which each element sends each pixel, shape ``(|G|, H * W)``.
        event_shape: The shape (C, H, W) of an image.
        too_large: The reason why dense bases are not available, or None where they are.

    Example:
        >>> from pyro_gflows.actions import ImageAction
        >>> action = ImageAction("C2", size=2)
        >>> image_isotypes(action.group, action.fields, action.grid_permutations(), action.event_shape).sizes
        [2, 2]
    """
    elements, orbits = group.elements(), connected_components(targets)
    position = torch.empty(targets.shape[-1], dtype=torch.int64)
    for orbit in orbits:
        position[orbit] = torch.arange(len(orbit))
    within = position[targets]
    permutations = [within[:, orbit] for orbit in orbits]
    known: dict[tuple[Representation, bytes], Decomposition] = {}
    parts, places, labels = [], [], []
    start = 0
    for label, field in enumerate(fields):
        channels = (start + torch.arange(field.size))[:, None] * targets.shape[-1]
        for orbit, permutation in zip(orbits, permutations, strict=True):
            key = (field, permutation.numpy().tobytes())
            if key not in known:
                known[key] = decompose(_on_orbit(group, field.matrices(elements), permutation))
            parts.append(known[key])
            places.append((channels + orbit).flatten())
            labels.append(label)
        start += field.size
    return merge(parts, places, event_shape, labels=labels, too_large=too_large)


def _on_orbit(group: EnumerableGroup, channels: Tensor, permutation: Tensor) -> Representation:
    """The representation on a field restricted to one orbit of pixels."""
    table = channels[:, :, None, :, None] * permutation_matrices(permutation)[:, None, :, None, :]
    return MatrixRepresentation(group, table.flatten(3, 4).flatten(1, 2), name="field on an orbit")
