"""Learnable coefficients whose count may be zero."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

__all__ = ["register_coefficients"]


def register_coefficients(module: nn.Module, name: str, count: int) -> None:
    """Give a module a parameter with ``count`` entries that start at 0, or, if the count is 0, an empty tensor.

    An equivariant layer may have no free coefficient at all. An empty parameter would be of no use to an optimizer, and
    some tools fail to compute its norm, its largest entry or its gradient. A file that holds such an empty parameter
    still loads.

    Args:
        module: The module, which is changed in place.
        name: The name of the new attribute.
        count: The number of coefficients.

    Example:
        >>> module = nn.Module()
        >>> register_coefficients(module, "shift", 0)
        >>> list(module.parameters()), module.shift.shape
        ([], torch.Size([0]))
    """
    if count:
        module.register_parameter(name, nn.Parameter(torch.zeros(count)))
        return
    module.register_buffer(name, torch.zeros(0), persistent=False)
    module._register_load_state_dict_pre_hook(functools.partial(_without_empty, name))


def _without_empty(name: str, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
    stored = state_dict.get(prefix + name)
    if stored is not None and stored.numel() == 0:
        del state_dict[prefix + name]
