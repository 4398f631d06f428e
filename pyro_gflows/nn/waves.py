"""Smooth random images of the whole plane, which can be turned by any angle before they are sampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Waves"]


class Waves:
    """Sums of plane waves, with the spectrum of white noise after a Gaussian blur.

    Args:
        shape: of the batch, and channels.
        blur: standard deviation of the blur in pixels; 0 is white noise up to the finest waves that pixels hold.
        seed: of the waves.
        count: waves in each image.

    Example:
        >>> Waves((3, 1), blur=1.5, seed=0).sampled(torch.eye(2), 9).shape
        torch.Size([3, 1, 9, 9])
    """

    def __init__(self, shape: Sequence[int], *, blur: float, seed: int, count: int = 64) -> None:
        generator = torch.Generator().manual_seed(seed)
        if blur > 0:
            normal = torch.randn(*shape, count, 2, generator=generator, dtype=torch.float64)
            self.frequencies = normal / (2**0.5 * blur)
        else:
            uniform = torch.rand(*shape, count, 2, generator=generator, dtype=torch.float64)
            self.frequencies = torch.pi * (2 * uniform - 1)
        self.phases = 2 * torch.pi * torch.rand(*shape, count, generator=generator, dtype=torch.float64)

    def sampled(self, matrix: Tensor, size: int) -> Tensor:
        """The images, turned by a 2 x 2 matrix, on a ``size x size`` grid (odd) about the point that stays in place."""
        steps = torch.arange(size, dtype=torch.float64) - size // 2
        points = torch.stack([steps.repeat(size), -steps.repeat_interleave(size)])
        angles = self.frequencies @ (matrix.double().T @ points) + self.phases[..., None]
        return (2 / angles.shape[-2]) ** 0.5 * angles.cos().sum(-2).unflatten(-1, (size, size))
