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

    Attributes:
        is_identity: Whether the tensor is known to be an identity matrix, with which nothing has to be multiplied.

    Example:
        >>> basis = FixedBasis(torch.tensor([1 / 3], dtype=torch.float64))
        >>> basis.float()(torch.ones(1)).dtype, bool(basis.double().value == 1 / 3)
        (torch.float32, True)
    """

    value: Tensor
    is_identity = False

    def __init__(self, value: Tensor) -> None:
        super().__init__()
        self.register_buffer("value", value.detach().to(torch.float64).clone())
        self.is_identity = _is_identity(self.value)

    def forward(self, like: Tensor) -> Tensor:
        """The tensor on the device and in the dtype of ``like``."""
        return self.value.to(like)

    def _load_from_state_dict(self, *arguments: Any) -> None:
        super()._load_from_state_dict(*arguments)
        self.is_identity = _is_identity(self.value)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact = self.value
        super()._apply(fn, recurse)
        if self.value.dtype != exact.dtype:
            self.value = exact.to(self.value.device)
        return self

    def extra_repr(self) -> str:
        return "x".join(map(str, self.value.shape))


def _is_identity(value: Tensor) -> bool:
    if value.is_meta or value.dim() != 2 or value.shape[0] != value.shape[1]:
        return False
    return torch.equal(value, torch.eye(len(value), dtype=value.dtype, device=value.device))
