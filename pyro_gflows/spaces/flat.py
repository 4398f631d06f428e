"""Flat: the common part of spaces whose events have one coordinate for each entry."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.spaces.base import Space

__all__ = ["Flat"]


class Flat(Space):
    """The base class of spaces in which all tensors of one shape are coordinates, with Lebesgue measure.

    Args:
        event_shape: The shape of an event.

    Raises:
        ValueError: If a size is not positive.
    """

    def __init__(self, event_shape: Sequence[int]) -> None:
        self.event_shape = torch.Size(event_shape)
        if any(size < 1 for size in self.event_shape):
            raise ValueError(f"expected an event shape of positive sizes, got {tuple(self.event_shape)}")

    @property
    def dimension(self) -> int:
        return self.event_shape.numel()

    def tangent_basis(self, x: Tensor) -> Tensor:
        batch = x.shape[: x.ndim - self.event_dim]
        return torch.eye(self.dimension, dtype=x.dtype, device=x.device).expand(*batch, -1, -1)

    def _key(self) -> Any:
        return self.event_shape
