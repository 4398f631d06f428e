"""Shared weights: one weight for each orbit of entries under a group that permutes them up to signs."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.groups.orbits import component_labels

__all__ = ["coordinate_images", "signed_orbits", "spread"]


def coordinate_images(action: LinearAction) -> tuple[Tensor, Tensor]:
    """For the identity and each generator, the source and the sign of each coordinate of the image of an event.

    Args:
        action: An action that permutes the coordinates of the flattened event up to signs.

    Returns:
        The sources (indices) and the signs, each of shape ``(1 + generators, numel)``.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> sources, signs = coordinate_images(VectorAction.regular("C2"))
        >>> sources.tolist(), signs.tolist()
        ([[0, 1], [1, 0]], [[1.0, 1.0], [1.0, 1.0]])
    """
    places = torch.arange(1, action.numel + 1, dtype=torch.float64).reshape(action.event_shape)
    # with the identity, since a trivial group has no generators
    images = torch.stack([places, *(action.act(element, places) for element in action.generators())]).flatten(1)
    return images.abs().round().long() - 1, images.sign()


def signed_orbits(targets: Tensor, signs: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """For each entry, the index of its orbit and its sign, which is 0 where the entry must vanish.

    An entry must vanish if the group takes it to its own negative.

    Args:
        targets: The index to which each generator sends each entry, shape ``(generators, entries)``.
        signs: The sign with which it does, of the same shape.
        allowed: The entries that may be nonzero, constant on orbits; None for all.

    Example:
        >>> index, sign = signed_orbits(torch.tensor([[1, 0, 2]]), torch.tensor([[-1.0, -1.0, 1.0]]))
        >>> index.tolist(), sign.tolist()
        ([0, 0, 1], [1.0, -1.0, 1.0])
    """
    size = targets.shape[-1]
    # two copies of every entry, positive and negative: an element that negates exchanges the sheets
    other = (signs < 0).long() * size
    labels = component_labels(torch.cat([targets + other, targets + size - other], dim=-1))
    positive, negative = labels[:size], labels[size:]
    alive = positive != negative
    if allowed is not None:
        alive = alive & allowed
    index = torch.zeros(size, dtype=torch.int64)
    index[alive] = torch.unique(torch.minimum(positive, negative)[alive], return_inverse=True)[1]
    return index, torch.where(positive < negative, 1.0, -1.0) * alive


def spread(values: Tensor, index: Tensor, sign: Tensor) -> Tensor:
    """The value of the orbit of each entry times the sign of the entry, in the shape of ``sign``."""
    if values.numel() == 0:  # only zero is equivariant
        return values.new_zeros(sign.shape)
    return values.gather(0, index).view(sign.shape) * sign
