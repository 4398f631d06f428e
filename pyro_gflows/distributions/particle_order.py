"""The order and the frame of a configuration of particles around one of them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = ["around_center", "in_frame"]

_LEAST = 1e-24
_ON_LINE = 16.0  # times the squared rounding error: what is left of a unit vector, where it is along the other


def around_center(x: Tensor, center: Tensor) -> Tensor:
    """The positions of the other particles relative to one, by increasing distance from it.

    Args:
        x: Configurations, shape ``(batch, n, d)``.
        center: The index of the particle in each, shape ``(batch,)``.

    Returns:
        Shape ``(batch, n - 1, d)``.

    Example:
        >>> x = torch.tensor([[[3.0, 0.0], [1.0, 0.0], [1.5, 0.0]]])
        >>> around_center(x, torch.tensor([1]))
        tensor([[[0.5000, 0.0000],
                 [2.0000, 0.0000]]])
    """
    differences = x - x.gather(1, center[:, None, None].expand(-1, 1, x.shape[2]))
    squares = differences.detach().square().sum(-1).scatter(1, center[:, None], -1.0)
    order = squares.argsort(1)[:, 1:]
    return differences.gather(1, order[..., None].expand(-1, -1, x.shape[2]))


def in_frame(y: Tensor) -> tuple[Tensor, Tensor]:
    """Lengths of vectors, and their directions in the frame of the first ones.

    In the plane the first vector points along the first axis. In space it points along the last axis, and the second
    vector lies in the half plane of that axis and the first one.

    Args:
        y: Vectors, shape ``(batch, vectors, d)``, with d = 2 or 3.

    Returns:
        The lengths, shape ``(batch, vectors)``, and unit vectors, shape ``(batch, vectors, d)``.
    """
    lengths = y.square().sum(-1).clamp_min(_LEAST).sqrt()
    units = y / lengths[..., None]
    first = units[:, 0]
    if y.shape[2] == 2:
        axes = torch.stack([first, torch.stack([-first[:, 1], first[:, 0]], -1)], -1)
    else:
        second = _across(first, units[:, 1])
        axes = torch.stack([second, torch.cross(first, second, dim=-1), first], -1)
    return lengths, units @ axes


def _across(first: Tensor, other: Tensor) -> Tensor:
    """The unit vector across the first one, in the plane of both; any across it, where they are on one line."""
    coordinate = functional.one_hot(first.detach().abs().argmin(-1), first.shape[-1]).to(first)
    for _ in range(2):  # rounding leaves a part along the first one, which grows as the rest is small
        other = other - (other * first).sum(-1, keepdim=True) * first
        size = other.square().sum(-1, keepdim=True)
        on_line = size.detach() < _ON_LINE * torch.finfo(first.dtype).eps ** 2
        other = torch.where(on_line, coordinate, other / size.clamp_min(_LEAST).sqrt())
    return other
