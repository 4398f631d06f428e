"""The map from gray levels to real values and back, and the bits per dimension that follow from it."""

from __future__ import annotations

import math
import numbers
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.deprecation import renamed_arguments, renamed_attributes
from pyro_gflows.serialization.registry import registered

__all__ = ["GrayLevels"]


@renamed_attributes(centre="center", dequantise="dequantize", redequantise="redequantize", quantise="quantize")
@renamed_arguments(centre="center")
@registered
@dataclass(frozen=True)
class GrayLevels:
    r"""Uniform dequantization of gray levels: integers become continuous values, which are centered and scaled.

    A flow is a density of continuous values; a fit to the integers themselves has no bound on the likelihood. Uniform
    noise turns level k of n into

    .. math:: y = a\,\bigl((k + u)/n - c\bigr), \qquad u \text{ uniform on } [0, 1).

    With p the density of y over d pixels, Jensen's inequality bounds the probability of the levels from below,
    :math:`\log P(k) \ge E_u \log p(y) + d \log a - d \log n`, so that

    .. math:: \text{bits/dim} = \bigl(-E \log p(y)/d - \log a + \log n\bigr) / \log 2

    is an upper bound on the code length per pixel. A uniform density over the cube gives exactly log2(n).

    Args:
        levels: The number of gray levels n.
        center: The position c in [0, 1] that becomes the origin.
        gain: The factor a, about one over the standard deviation of (k + u)/n.

    Raises:
        TypeError: ``levels`` is not an integer.
        ValueError: ``levels`` is below 1.

    Example:
        >>> scaling = GrayLevels(17, center=0.5, gain=2.0)
        >>> round(2 ** scaling.bits_per_dim(64 * math.log(2.0), pixels=64))
        17
    """

    levels: int
    center: float = 0.5
    gain: float = 1.0

    def __post_init__(self) -> None:
        levels: Any = self.levels
        if isinstance(levels, bool) or not isinstance(levels, numbers.Integral):
            raise TypeError(f"expected the number of gray levels, such as GrayLevels(256), got {levels!r}")
        if self.levels < 1:
            raise ValueError(f"expected at least 1 gray level, got {self.levels}")

    @property
    def step(self) -> float:
        """The length a / n of the interval of values of one level."""
        return self.gain / self.levels

    def interval(self) -> tuple[float, float]:
        """Return the interval in which the values of scaled images lie, for :class:`~pyro_gflows.GSigmoid`.

        Example:
            >>> GrayLevels(256, center=0.5, gain=2.0).interval()
            (-1.0, 1.0)
        """
        return -self.gain * self.center, self.gain * (1 - self.center)

    def to_real(self, position: Tensor) -> Tensor:
        """Return the scaled value at a position between 0 and n; level k begins at k, and its middle is at k + 1/2."""
        return self.gain * (position / self.levels - self.center)

    def dequantize(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Return real values, with fresh noise and in the default dtype, for the levels 0 .. n-1 (of any dtype).

        Args:
            image: Levels of any shape.
            generator: The generator of the noise, which may be on another device than the image.

        Raises:
            ValueError: A level is below 0 or above n-1.

        Example:
            >>> image = torch.tensor([0, 128, 255])
            >>> scaling = GrayLevels(256)
            >>> scaling.quantize(scaling.dequantize(image)).tolist()
            [0, 128, 255]
        """
        if image.numel() and not (image.min() >= 0 and image.max() <= self.levels - 1):
            raise ValueError(
                f"expected gray levels between 0 and {self.levels - 1}, got values between {image.min().item():g} and "
                f"{image.max().item():g}; give their number as GrayLevels(n)"
            )
        device = image.device if generator is None else generator.device
        noise = torch.rand(image.shape, generator=generator, device=device).to(image.device)
        # In float32 (n - 1 + u) can round up to n, which would read as a level that does not exist.
        unit = ((image + noise) / self.levels).clamp(max=1 - torch.finfo(noise.dtype).eps)
        return self.gain * (unit - self.center)

    def quantize(self, y: Tensor) -> Tensor:
        """Return the level (int64) of each real value; a value outside the range gets the nearest level."""
        return (self.to_unit(y) * self.levels).floor().long().clamp(0, self.levels - 1)

    def to_unit(self, y: Tensor) -> Tensor:
        """Undo the centering and the scaling, so that the values of data lie in [0, 1], as pictures need them."""
        return y / self.gain + self.center

    def redequantize(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the noise of dequantized images again, an augmentation that keeps a flow from learning the noise."""
        return self.dequantize(self.quantize(y), generator).to(y.dtype)

    def bits_per_dim(self, nll: float, *, pixels: int) -> float:
        """Return the bits per pixel that belong to a mean negative log-density of the scaled images.

        Args:
            nll: The mean negative log-density in nats.
            pixels: The number of pixels of an image, times its channels.
        """
        return (nll / pixels - math.log(self.gain) + math.log(self.levels)) / math.log(2)
