"""The log-determinant of symmetric positive definite matrices, with a gradient that costs one inverse."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_gflows.numerics.exact import log_abs_det
from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["positive_log_det"]

_CLOSED_FORM = 3


def positive_log_det(matrix: Tensor) -> Tensor:
    """The log-determinant of symmetric positive definite matrices A, in closed form up to size 3.

    For larger ones it is the Cholesky factorization, which gives NaN where a matrix is not positive definite. The
    gradient is the inverse of A, from the same factor; that of the factorization itself takes twice as long.

    Args:
        matrix: A, of shape ``(..., d, d)``.

    Example:
        >>> round(float(positive_log_det(torch.diag(torch.tensor([1.0, 2.0, 3.0, 4.0])))), 4)
        3.1781
    """
    if matrix.shape[-1] <= _CLOSED_FORM:
        return log_abs_det(matrix)
    if transforming() or torch.compiler.is_compiling() or not matrix.requires_grad:
        return _of_factor(_factor(matrix))
    log_det: Tensor = _PositiveLogDet.apply(matrix)
    return log_det


def _factor(matrix: Tensor) -> Tensor:
    return torch.linalg.cholesky_ex(matrix)[0]  # it reports a failure by NaN, and needs no answer from a GPU


def _of_factor(factor: Tensor) -> Tensor:
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


class _PositiveLogDet(torch.autograd.Function):
    """The log-determinant, whose gradient is the inverse."""

    @staticmethod
    def forward(ctx: Any, matrix: Tensor) -> Tensor:
        factor = _factor(matrix)
        ctx.save_for_backward(matrix, factor)
        return _of_factor(factor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        matrix, factor = ctx.saved_tensors
        if torch.is_grad_enabled():  # for second derivatives the inverse needs a graph
            factor = _factor(matrix)
        return gradient[..., None, None] * torch.cholesky_inverse(factor)
