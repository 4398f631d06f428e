"""Log-densities that are known up to a constant, as functions of events."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["LogDensity", "on_full_plates"]

LogDensity = Callable[[Tensor], Tensor]
"""Maps events, shape ``(n, *event_shape)``, to log p up to a constant, shape ``(n,)``."""


def on_full_plates(log_density: LogDensity) -> LogDensity:
    """The log-density of all data, where calls of ``log_density`` see a random minibatch of them.

    That is its method of this name where it has one, as :meth:`AutoGFlow.log_density` has; else itself.

    Example:
        >>> import torch
        >>> on_full_plates(torch.sin) is torch.sin
        True
    """
    full: LogDensity = getattr(log_density, "on_full_plates", log_density)
    return full
