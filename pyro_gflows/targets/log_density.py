"""Log-densities that are known up to a constant, as functions of events."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

__all__ = ["LogDensity", "on_full_plates"]

#: A function from events, shape ``(n, *event_shape)``, to log p up to a constant, shape ``(n,)``.
LogDensity = Callable[[Tensor], Tensor]


def on_full_plates(log_density: LogDensity) -> LogDensity:
    """Return the log-density given all data, for a function that uses a random minibatch of the data at every call.

    The posterior of a Pyro model with a subsampled plate has a log-density that is random; figures that are reported
    need the exact one. A function that knows its exact version has it as an attribute ``on_full_plates``, as
    :meth:`AutoGFlow.log_density` has. Any other function is returned as it is.

    Args:
        log_density: A log-density of events, up to a constant.

    Example:
        >>> import torch
        >>> on_full_plates(torch.sin) is torch.sin
        True
    """
    full: LogDensity = getattr(log_density, "on_full_plates", log_density)
    return full
