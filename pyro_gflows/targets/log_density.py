"""Log-densities that are known up to a constant, as functions of events."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from pyro_gflows.targets.exact_density import Density

__all__ = ["LogDensity", "known_log_z", "log_density_of", "on_full_plates"]

#: A function from events, shape ``(n, *event_shape)``, to log p up to a constant, shape ``(n,)``.
LogDensity = Callable[[Tensor], Tensor]


def on_full_plates(log_density: LogDensity) -> LogDensity:
    """Return the log-density given all data, for a function that uses a random minibatch of the data at every call.

    The posterior of a Pyro model with a subsampled plate has a log-density that is random; figures that are reported
    need the exact one. A function that knows its exact version has it as an attribute ``on_full_plates``, as
    :meth:`AutoGFlow.log_density` and the log-density of a :class:`SoftenedDensity` have. Any other function is returned
    as it is.

    Args:
        log_density: A log-density of events, up to a constant.

    Example:
        >>> import torch
        >>> on_full_plates(torch.sin) is torch.sin
        True
    """
    full: LogDensity = getattr(log_density, "on_full_plates", log_density)
    return full


def log_density_of(target: LogDensity | Density) -> LogDensity:
    """Return the log-density of a density up to a constant, as a function; a function is returned as it is.

    Args:
        target: A density, or a function from events to log p up to a constant.

    Example:
        >>> import torch
        >>> from pyro_gflows.targets import TorusCorrelated
        >>> log_density_of(TorusCorrelated())(torch.tensor([1.0, 0.94]))
        tensor(1.)
    """
    return target.log_density if isinstance(target, Density) else target


def known_log_z(target: LogDensity | Density) -> float | None:
    """Return the log of the integral of a density that is known up to a constant, or None if it is not known.

    It is known for a :class:`Density` with ``log_z``, for its methods ``log_density`` and ``log_prob``, and for any
    other function with an attribute ``log_z``, such as a :class:`SoftenedDensity`.

    Args:
        target: A density, or a function from events to log p up to a constant.

    Example:
        >>> from pyro_gflows.targets import DoubleWell
        >>> known_log_z(DoubleWell()), known_log_z(DoubleWell().log_prob), known_log_z(lambda x: -x)
        (29.664, 0.0, None)
    """
    if isinstance(owner := getattr(target, "__self__", None), Density):
        constants = {"log_density": owner.log_z, "log_prob": 0.0}
        return constants.get(getattr(target, "__name__", ""))
    found: float | None = getattr(target, "log_z", None)
    return found
