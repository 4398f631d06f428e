"""Angles modulo the full circle."""

from __future__ import annotations

import math

import torch
from torch import Tensor

__all__ = ["angle_between", "wrap_angle"]

_CIRCLE = 2 * math.pi


def wrap_angle(x: Tensor) -> Tensor:
    """The angles in [0, 2 pi) that differ from x by whole circles. The value 2 pi itself is never returned.

    Args:
        x: Angles in radians, of any shape.

    Example:
        >>> wrap_angle(torch.tensor([-1e-20, 7.0])).tolist()
        [0.0, 0.7168145179748535]
    """
    wrapped = torch.remainder(x, _CIRCLE)
    # a tiny negative angle plus 2 pi is rounded to 2 pi; the subtraction keeps the derivative 1
    return torch.where(wrapped < _CIRCLE, wrapped, wrapped - _CIRCLE)


def angle_between(x: Tensor, y: Tensor) -> Tensor:
    """The difference x - y of angles, in [-pi, pi): the shortest way from y to x.

    Args:
        x: Angles in radians.
        y: Angles whose shape broadcasts with that of x.

    Example:
        >>> angle_between(torch.tensor([0.25, 0.0]), torch.tensor([6.25, math.pi]))
        tensor([ 0.2832, -3.1416])
    """
    difference = x - y
    # not by wrap_angle, which would round a small difference to the precision of pi
    return difference - _CIRCLE * (difference / _CIRCLE + 0.5).floor()
