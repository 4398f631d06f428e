"""The floor of an NLL: the entropy of the data, below which no density can be."""

from __future__ import annotations

import math

__all__ = ["assert_above_floor"]


def assert_above_floor(
    nll: float, floor: float, *, error: float, floor_error: float = 0.0, standard_errors: float = 4.0
) -> None:
    """Check that a reported NLL is not below the entropy of its data, which would be a bug.

    The mean NLL of any density on exact samples is at least their entropy. A figure below it comes from a log-det that
    is too high, a constant that is missing, or samples that are not exact.

    Args:
        nll: The mean NLL in nats.
        floor: The entropy in nats, such as the ``floor`` of a target.
        error: The standard error of the mean.
        floor_error: The standard error with which the entropy is known.
        standard_errors: By how many standard errors the NLL may be below.

    Raises:
        AssertionError: If the NLL is NaN, or further below the floor than chance explains.
        ValueError: If a standard error is negative or NaN.

    Example:
        >>> assert_above_floor(7.14, 7.13, error=0.01)
    """
    if not (error >= 0 and floor_error >= 0):
        raise ValueError(f"expected a standard error of 0 or more, got error={error} and floor_error={floor_error}")
    if not nll >= floor - standard_errors * math.hypot(error, floor_error):
        raise AssertionError(
            f"the NLL {nll:.6g} +- {error:.2g} is below the entropy {floor:.6g} +- {floor_error:.2g}, which no density "
            "can be: a log-det is too high, a constant is missing, or the samples are not exact"
        )
