"""The orbits of the entries of an equivariant matrix, under a group that permutes coordinates up to signs."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction
from pyro_gflows.nn.tying import coordinate_images, signed_orbits

__all__ = ["EntryOrbits", "entry_orbits"]


class EntryOrbits(NamedTuple):
    """The orbits of the entries of a matrix.

    Attributes:
        orbit: The index of the orbit of each entry, shape ``(n_out, n_in)``.
        sign: The sign of each entry, which is 0 where the entry must vanish, of the same shape.
        size: The number of orbits.
    """

    orbit: Tensor
    sign: Tensor
    size: int


class _Kind(NamedTuple):
    """All fields of an action whose coordinates the group permutes in the same way."""

    sources: Tensor  # the source of each coordinate within a field, for each generator
    signs: Tensor
    fields: list[int]
    places: Tensor  # the coordinates of each field, shape (fields, size)


def entry_orbits(
    action_in: LinearAction, action_out: LinearAction, labels: tuple[Sequence[int], Sequence[int]] | None = None
) -> EntryOrbits:
    """The orbits of the entries of an equivariant matrix between two actions.

    Orbits are found once for each pair of kinds of fields, so that many equal fields cost little.

    Args:
        action_in: How the group acts on the input: it permutes coordinates up to signs.
        action_out: How the group acts on the output, in such a way too.
        labels: None, or an integer for each field of the input and of the output. Entries for which the label of the
            input is larger are in no orbit.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> entry_orbits(VectorAction.regular("C2"), VectorAction.regular("C2"))
        EntryOrbits(orbit=tensor([[0, 1],
                [1, 0]]), sign=tensor([[1., 1.],
                [1., 1.]]), size=2)
    """
    shape = (action_out.numel, action_in.numel)
    index, sign, count = torch.zeros(shape, dtype=torch.int64), torch.zeros(shape), 0
    of, into = labels or ([0] * len(action_in.fields), [0] * len(action_out.fields))
    for target, source in itertools.product(_kinds(action_out), _kinds(action_in)):
        size = source.places.shape[1]
        targets = (target.sources[:, :, None] * size + source.sources[:, None, :]).flatten(1)
        signs = (target.signs[:, :, None] * source.signs[:, None, :]).flatten(1)
        local, local_sign = (entries.view(-1, size) for entries in signed_orbits(targets, signs))
        if not bool(local_sign.any()):
            continue
        orbits = int(local.max()) + 1
        allowed = torch.tensor([into[field] for field in target.fields])[:, None] >= torch.tensor(
            [of[field] for field in source.fields]
        )
        first = count + orbits * (allowed.flatten().cumsum(0).view(allowed.shape) - 1)  # of each allowed pair of fields
        rows, columns = target.places[:, None, :, None], source.places[None, :, None, :]
        pairs = allowed[:, :, None, None]
        index[rows, columns] = torch.where(pairs, first[:, :, None, None] + local, 0)
        sign[rows, columns] = local_sign.to(sign) * pairs
        count += orbits * int(allowed.sum())
    return EntryOrbits(index, sign, count)


def _kinds(action: LinearAction) -> list[_Kind]:
    sources, signs = coordinate_images(action)
    found: dict[tuple[bytes, bytes], tuple[list[int], list[Tensor]]] = {}
    for field, places in enumerate(torch.arange(action.numel).split(action.field_sizes)):
        own, own_signs = sources[:, places] - places[0], signs[:, places]
        key = own.numpy().tobytes(), own_signs.numpy().tobytes()
        fields, listed = found.setdefault(key, ([], []))
        fields.append(field)
        listed.append(places)
    kinds = []
    for fields, listed in found.values():
        places = torch.stack(listed)
        kinds.append(_Kind(sources[:, places[0]] - places[0, 0], signs[:, places[0]], fields, places))
    return kinds
