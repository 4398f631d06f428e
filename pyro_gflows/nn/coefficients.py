"""Learnable coefficients of which there may be none."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import nn

__all__ = ["register_coefficients"]


def register_coefficients(module: nn.Module, name: str, count: int) -> None:
    """Give a module a parameter of ``count`` numbers that start at 0, or, where there are none, an empty tensor.

    A parameter of 0 elements is one that no optimizer can change, and whose norm, largest entry or gradient some refuse
    to compute. A file that was written with such a parameter still loads.

    Args:
        module: changed in place.
        name: of its new attribute.
        count: how many numbers.

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
