"""Constant matrices that a module computes with."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["FixedBasis"]


class FixedBasis(nn.Module):
    """A constant float64 tensor of a module, which is saved with the weights and never loses precision.

    A plain buffer that went through ``.float()`` keeps an error of 1e-7 after ``.double()``, and so would every
    equivariance that rests on the buffer. The tensor follows its module to another device. It is saved because weights
    mean something only in the basis in which they were trained, and another machine may compute another basis.

    Args:
        value: The tensor, of any shape.

    Example:
        >>> basis = FixedBasis(torch.tensor([1 / 3], dtype=torch.float64))
        >>> basis.float()(torch.ones(1)).dtype, bool(basis.double().value == 1 / 3)
        (torch.float32, True)
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
