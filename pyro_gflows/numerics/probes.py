"""Probe vectors of trace estimators: entries +1 or -1, so that the mean of eps eps^T is the identity."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["fixed_probes", "random_probes"]


def random_probes(x: Tensor) -> Tensor:
    """A probe of the shape of x, from torch's default generator of the device of x.

    >>> random_probes(torch.zeros(3, 2)).abs().unique()
    tensor([1.])
    """
    return torch.randint(0, 2, x.shape, dtype=x.dtype, device=x.device).mul_(2).sub_(1)


def fixed_probes(count: int, event_shape: Sequence[int], *, seed: int, like: Tensor) -> Tensor:
    """``count`` probes of shape (count,) + event_shape, the same for a seed on every device and dtype.

    >>> fixed_probes(4, (2, 3), seed=0, like=torch.zeros(1)).shape
    torch.Size([4, 2, 3])
    """
    generator = torch.Generator().manual_seed(seed)
    signs = torch.randint(0, 2, (count, *event_shape), generator=generator) * 2 - 1
    return signs.to(device=like.device, dtype=like.dtype)
