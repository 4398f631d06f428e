"""Shared weights: one weight for each orbit of entries under a group that permutes them up to signs."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import ImageAction, LinearAction
from pyro_gflows.groups.orbits import component_labels

__all__ = ["channel_images", "coordinate_images", "kernel_entries", "signed_orbits", "spread", "tied_to"]


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


def channel_images(action: ImageAction) -> tuple[Tensor, Tensor]:
    """For each generator of the point group, the channel to which it sends each channel, and the sign of that map.

    Args:
        action: An action that permutes channels up to signs.

    Returns:
        The targets (indices) and the signs, each of shape ``(generators, C)``.

    Example:
        >>> targets, signs = channel_images(ImageAction("C2", size=3, fields="regular"))
        >>> targets.tolist(), signs.tolist()
        ([[1, 0]], [[1.0, 1.0]])
    """
    matrices = action.channel_matrices(action.point_group.generators())
    return matrices.abs().argmax(-2), matrices.sum(-2)


def kernel_entries(action_in: ImageAction, action_out: ImageAction, offsets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """How each generator of the point group permutes the entries (output channel, input channel, offset) of a kernel.

    Args:
        action_in: How the group acts on the input of the convolution.
        action_out: How the group acts on its output.
        offsets: The offset to which each generator sends each of n offsets, shape ``(generators, n)``.

    Returns:
        The targets and the signs of the entries, each of shape ``(generators, C_out * C_in * n)``, and the targets of
        the pairs of channels, shape ``(generators, C_out, C_in)``.

    Example:
        >>> action = ImageAction("C2", size=3, fields="regular")
        >>> targets, signs, pairs = kernel_entries(action, action, torch.tensor([[1, 0]]))
        >>> targets.tolist(), pairs.tolist()
        ([[7, 6, 5, 4, 3, 2, 1, 0]], [[[3, 2], [1, 0]]])
    """
    out_targets, out_signs = channel_images(action_out)
    in_targets, in_signs = channel_images(action_in)
    pairs = out_targets[:, :, None] * action_in.channels + in_targets[:, None, :]
    targets = pairs[..., None] * offsets.shape[-1] + offsets[:, None, None, :]
    signs = (out_signs[:, :, None] * in_signs[:, None, :])[..., None].expand_as(targets)
    return targets.flatten(1), signs.flatten(1), pairs


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
    return values.index_select(0, index).view(sign.shape) * sign


def tied_to(weights: Tensor, entries: Tensor, index: Tensor, sign: Tensor) -> Tensor:
    """The values of the orbits for which :func:`spread` is nearest to given entries: their means with signs.

    Args:
        weights: The values of the orbits as they are, for their number, dtype and device.
        entries: The entries, of the shape of ``sign``.
        index: The index of the orbit of each entry.
        sign: The sign of each entry.

    Example:
        >>> tied_to(torch.zeros(1), torch.tensor([3.0, -5.0]), torch.tensor([0, 0]), torch.tensor([1.0, -1.0]))
        tensor([4.])
    """
    signed = (entries * sign).flatten().to(weights)
    sums = torch.zeros_like(weights).index_add(0, index, signed)
    counts = torch.zeros_like(weights).index_add(0, index, sign.abs().flatten().to(weights))
    return sums / counts.clamp(min=1.0)
