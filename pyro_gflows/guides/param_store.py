"""Replaces weights in Pyro's parameter store, where two guides of one class have the same names."""

from __future__ import annotations

import pyro
import torch
from pyro.params.param_store import param_with_module_name
from torch import nn

__all__ = ["take_names"]


@torch.no_grad()
def take_names(module: nn.Module, prefix: str) -> bool:
    """Removes other tensors from the parameter store that have the names of a module's parameters.

    ``pyro.module`` keeps existing entries, and Pyro's optimizers update the entries of the store. Without this step
    they would update the entries of an earlier guide, and the module would not be trained.

    Args:
        module: The module that will be registered.
        prefix: The name under which it will be registered.

    Returns:
        Whether a removed entry had other values than the module's parameter.

    Example:
        >>> old, new = torch.nn.Linear(1, 1), torch.nn.Linear(1, 1)
        >>> _ = pyro.module("layer", old)
        >>> take_names(new, "layer"), take_names(new, "layer")
        (True, False)
        >>> _ = pyro.module("layer", new)
        >>> pyro.param("layer$$$bias") is new.bias
        True
    """
    store, differs = pyro.get_param_store(), False
    for name, parameter in module.named_parameters():
        full = param_with_module_name(prefix, name)
        held = store._params.get(full)
        if held is None or held is parameter:
            continue
        differs |= held.shape != parameter.shape or not bool((held.to(parameter) == parameter).all())
        del store[full]
    return differs
