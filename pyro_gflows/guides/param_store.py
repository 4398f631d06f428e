"""Pyro's parameter store, in which guides of one class share their names."""

from __future__ import annotations

import pyro
import torch
from pyro.params.param_store import param_with_module_name
from torch import nn

__all__ = ["take_names"]


@torch.no_grad()
def take_names(module: nn.Module, prefix: str) -> bool:
    """Remove from the parameter store what stands there under the names of a module's parameters and is not theirs.

    ``pyro.module`` leaves such entries alone, and Pyro's optimizers move what is in the store: without this the module
    would never be trained.

    Args:
        module: the module that is about to be registered.
        prefix: the name under which it will be registered.

    Returns:
        Whether an entry was removed that has other values than the module's parameter.

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
