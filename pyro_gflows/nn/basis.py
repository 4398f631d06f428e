"""Constant matrices that a module computes with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FixedBasis"]


class FixedBasis(nn.Module):
    """A constant float64 tensor that follows the device, and is saved with the weights, but never loses precision.

    A buffer that went through ``.float()`` stays at 1e-7 after ``.double()``, and so would every equivariance that
    rests on it. And weights mean something only in the basis they were trained in, which another machine may compute
    differently: so the basis belongs to the checkpoint.

    Args:
        value: the tensor, of any shape.
    """

    value: Tensor

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach().to(torch.float64).clone())

    def forward(self, like: Tensor) -> Tensor:
        """The tensor on the device and in the dtype of ``like``."""
        return self.value.to(like)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact = self.value
        super()._apply(fn, recurse)
        if self.value.dtype != exact.dtype:
            self.value = exact.to(self.value.device)
        return self

    def extra_repr(self) -> str:
        return "x".join(map(str, self.value.shape))
