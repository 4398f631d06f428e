"""Gray levels to real numbers and back, and what that does to bits per dimension."""

from __future__ import annotations

import math
from dataclasses import dataclass

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
    r"""Uniform dequantization of integer levels, centered and scaled.

    Level k of n becomes :math:`y = a\,((k + u)/n - c)` with u uniform on [0, 1). With p the density of y over d pixels,
    Jensen's inequality bounds the discrete likelihood from below:
    :math:`\log P(k) \ge E_u \log p(y) + d \log a - d \log n`, so that

    .. math:: \text{bits/dim} = \bigl(-E \log p(y)/d - \log a + \log n\bigr) / \log 2

    is an upper bound on the discrete code length per pixel. A uniform density over the cube gives exactly log2(n).

    Args:
        levels: Number of gray levels n.
        center: Position c in [0, 1] that is moved to the origin.
        gain: Factor a, about one over the standard deviation of (k + u)/n.

    Example:
        >>> scaling = GrayLevels(17, center=0.5, gain=2.0)
        >>> round(2 ** scaling.bits_per_dim(64 * math.log(2.0), pixels=64))
        17
    """

    levels: int
    center: float = 0.5
    gain: float = 1.0

    @property
    def step(self) -> float:
        """The length a / n of a level's cell."""
        return self.gain / self.levels

    def interval(self) -> tuple[float, float]:
        """Where scaled images lie, for :class:`~pyro_gflows.GSigmoid`.

        Example:
            >>> GrayLevels(256, center=0.5, gain=2.0).interval()
            (-1.0, 1.0)
        """
        return -self.gain * self.center, self.gain * (1 - self.center)

    def to_real(self, position: Tensor) -> Tensor:
        """The scaled number at a position between 0 and n: level k begins at k, and its middle is at k + 1/2."""
        return self.gain * (position / self.levels - self.center)

    def dequantize(self, image: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Turn levels 0 .. n-1 (any dtype) into real numbers in the default dtype, with fresh noise."""
        noise = torch.rand(image.shape, generator=generator, device=image.device)
        # In float32 (n - 1 + u) can round up to n, which would read as a level that does not exist.
        unit = ((image + noise) / self.levels).clamp(max=1 - torch.finfo(noise.dtype).eps)
        return self.gain * (unit - self.center)

    def quantize(self, y: Tensor) -> Tensor:
        """The level (int64) of each real pixel; values outside the range get the nearest level."""
        return (self.to_unit(y) * self.levels).floor().long().clamp(0, self.levels - 1)

    def to_unit(self, y: Tensor) -> Tensor:
        """Undo the centering and scaling: data lie in [0, 1], for pictures."""
        return y / self.gain + self.center

    def redequantize(self, y: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw the noise again (the same images, another u): an augmentation against learning the noise."""
        return self.dequantize(self.quantize(y), generator).to(y.dtype)

    def bits_per_dim(self, nll: float, *, pixels: int) -> float:
        """Bits per pixel of a mean negative log-density ``nll`` in nats of the scaled images."""
        return (nll / pixels - math.log(self.gain) + math.log(self.levels)) / math.log(2)
