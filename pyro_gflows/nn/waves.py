"""Smooth random images of the whole plane, which can be rotated by any angle before they are sampled."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["Waves"]


class Waves:
    """Sums of plane waves with the spectrum of white noise after a Gaussian blur.

    They are test images for equivariance under rotations that do not take the pixel grid to itself: sampling a rotated
    wave involves no interpolation.

    Args:
        shape: The shape of the batch, and the channels.
        blur: The standard deviation of the blur in pixels; 0 gives white noise up to the finest waves that pixels hold.
        seed: The seed of the waves.
        count: The number of waves in each image.

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
        """The images under a linear map of the plane, sampled on a grid about the fixed point.

        Args:
            matrix: The linear map, a 2 x 2 matrix.
            size: The odd side of the grid in pixels.
        """
        steps = torch.arange(size, dtype=torch.float64) - size // 2
        points = torch.stack([steps.repeat(size), -steps.repeat_interleave(size)])
        angles = self.frequencies @ (matrix.double().T @ points) + self.phases[..., None]
        return (2 / angles.shape[-2]) ** 0.5 * angles.cos().sum(-2).unflatten(-1, (size, size))
