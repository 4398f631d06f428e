"""The classical Runge-Kutta method of order 4, with the derivative of the discrete map that it computes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["runge_kutta", "runge_kutta_with_jacobian"]


def runge_kutta(
    field: Callable[[float, Tensor], Tensor], x: Tensor, *, steps: int, start: float = 0.0, end: float = 1.0
) -> Tensor:
    """The points at the end of equal Runge-Kutta steps of order 4 along a vector field, dx/dt = v(t, x).

    Args:
        field: The velocity ``v(t, x)``.
        x: The points at the start, of shape ``(n, d)``.
        steps: The number of steps.
        start: The time at the start.
        end: The time at the end, which may be before the start.

    Example:
        >>> x = runge_kutta(lambda t, x: x, torch.ones(1, 1, dtype=torch.float64), steps=64)
        >>> round(x.item(), 6)  # exp(1)
        2.718282
    """
    step = (end - start) / steps
    for index in range(steps):
        t = start + index * step
        first = field(t, x)
        second = field(t + step / 2, x + step / 2 * first)
        third = field(t + step / 2, x + step / 2 * second)
        last = field(t + step, x + step * third)
        x = x + step / 6 * (first + 2 * (second + third) + last)
    return x


def runge_kutta_with_jacobian(
    field: Callable[[float, Tensor], tuple[Tensor, Tensor]],
    x: Tensor,
    *,
    steps: int,
    start: float = 0.0,
    end: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The points of :func:`runge_kutta`, and the Jacobian of that map, of shape ``(n, d, d)``.

    The Jacobian is the derivative of the discrete steps, and no approximation of the derivative of the exact flow: the
    variational equation dJ/dt = (dv/dx) J takes the same steps as the points.

    Args:
        field: The velocity and its Jacobian, ``v(t, x), dv/dx``.
        x: The points at the start, of shape ``(n, d)``.
        steps: The number of steps.
        start: The time at the start.
        end: The time at the end, which may be before the start.

    Example:
        >>> eye = torch.eye(2, dtype=torch.float64)
        >>> _, jacobian = runge_kutta_with_jacobian(lambda t, x: (x, eye), torch.ones(1, 2).double(), steps=64)
        >>> round(jacobian[0, 0, 0].item(), 6)
        2.718282
    """
    unit = torch.eye(x.shape[-1], dtype=x.dtype, device=x.device).expand(len(x), -1, -1)
    both = torch.cat([x.unsqueeze(-1), unit], -1)

    def joint(t: float, both: Tensor) -> Tensor:
        velocity, jacobian = field(t, both[..., 0])
        return torch.cat([velocity.unsqueeze(-1), jacobian @ both[..., 1:]], -1)

    both = runge_kutta(joint, both, steps=steps, start=start, end=end)
    return both[..., 0], both[..., 1:]
