"""as_element: an element of a group as a tensor, also if it is given by its index."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups.base import Group

__all__ = ["as_element"]


def as_element(group: Group, element: Tensor | int) -> Tensor:
    """An element of a group as a tensor, also if it is given by its index.

    Args:
        group: The group.
        element: An element, or the index of an element of a finite group.

    Raises:
        TypeError: There is an index for a group whose elements have no indices.
        ValueError: The index is not below the order of the group.
    """
    if not isinstance(element, int):
        return element
    if len(group.element_shape):
        raise TypeError(f"expected an element of {group} as a tensor, got the index {element}; use group.sample()")
    if not 0 <= element < group.order:
        raise ValueError(f"expected the index of an element of {group} between 0 and {group.order - 1}, got {element}")
    return torch.tensor(element)
