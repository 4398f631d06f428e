"""How sign flips act on a vector, and the signs that take every image of it to one canonical form."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.actions.row_order import row_signs
from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.sign_representation import SignRepresentation
from pyro_gflows.groups.signs import SignGroup

__all__ = ["act_by_signs", "canonical_signs"]


def act_by_signs(group: SignGroup, fields: Sequence[Representation], elements: Tensor, x: Tensor) -> Tensor:
    """The images of vectors, by one product.

    Args:
        group: The group of sign flips.
        fields: How it acts on each coordinate: signs, or trivial representations.
        elements: Elements, whose batch shape broadcasts with that of x.
        x: Vectors, shape ``batch_shape + (len(fields),)``.

    Example:
        >>> group = SignGroup(2)
        >>> act_by_signs(group, [SignRepresentation(group, 1)] * 2, torch.tensor(1), torch.ones(2))
        tensor([-1., -1.])
    """
    columns = [field.index if isinstance(field, SignRepresentation) else group.n for field in fields]
    signs = torch.nn.functional.pad(group.signs_of(elements.to(x.device)), (0, 1), value=1)
    return x * signs[..., torch.tensor(columns, device=x.device)].to(x)


def canonical_signs(group: SignGroup, fields: Sequence[Representation], x: Tensor) -> Tensor:
    """The elements that make a fixed combination of the coordinates of each sign positive.

    A sign all of whose coordinates are 0 stays as it is.

    Args:
        group: The group of sign flips.
        fields: How it acts on each coordinate: signs, or trivial representations.
        x: Vectors, shape ``batch_shape + (len(fields),)``.

    Example:
        >>> group = SignGroup(12)
        >>> fields = [SignRepresentation(group, index) for index in range(12)]
        >>> x = torch.randn(3, 12)
        >>> one, other = canonical_signs(group, fields, x), canonical_signs(group, fields, -x)
        >>> torch.equal(one, -other)
        True
    """
    places: list[list[int]] = [[] for _ in range(group.n)]
    for place, field in enumerate(fields):
        if isinstance(field, SignRepresentation):
            places[field.index].append(place)
    most = max(1, *map(len, places))
    filled = [own + [len(fields)] * (most - len(own)) for own in places]  # the last place holds a 0
    table = torch.nn.functional.pad(x, (0, 1))[..., torch.tensor(filled, device=x.device)]
    return group.elements_of(signs=row_signs(table))
