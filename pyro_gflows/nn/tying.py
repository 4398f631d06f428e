"""Numbers that a group ties together: one weight for each orbit of entries, up to signs."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.groups.orbits import component_labels

__all__ = ["coordinate_moves", "signed_orbits", "spread"]


def coordinate_moves(action: LinearAction) -> tuple[Tensor, Tensor]:
    """Where the identity and each generator take each coordinate of the flattened event from, and with which sign.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> sources, signs = coordinate_moves(VectorAction.regular("C2"))
        >>> sources.tolist(), signs.tolist()
        ([[0, 1], [1, 0]], [[1.0, 1.0], [1.0, 1.0]])
    """
    places = torch.arange(1, action.numel + 1, dtype=torch.float64).reshape(action.event_shape)
    # the identity beside them, as a trivial group has no generators
    moved = torch.stack([places, *(action.act(element, places) for element in action.generators())]).flatten(1)
    return moved.abs().round().long() - 1, moved.sign()


def signed_orbits(targets: Tensor, signs: Tensor, allowed: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """For every entry its orbit's number and its sign: 0 where it must vanish (an orbit that meets itself negated).

    Args:
        targets: where each generator sends (or takes) each entry, ``(generators, entries)``.
        signs: with which sign.
        allowed: entries that may be other than zero, all by default; constant on orbits.

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
    """One value for each orbit, at every entry; in the shape of ``sign``."""
    if values.numel() == 0:  # nothing is equivariant but zero
        return values.new_zeros(sign.shape)
    return values.gather(0, index).view(sign.shape) * sign
