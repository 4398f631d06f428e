"""The corner entry of the logarithm of a growing Hessenberg matrix, by quadrature."""

from __future__ import annotations

import functools
import math

import numpy as np
import torch
from torch import Tensor

from pyro_gflows.numerics.constants import as_constants

__all__ = ["HessenbergLog", "log_quadrature"]


def log_quadrature(lipschitz: float, like: Tensor) -> tuple[Tensor, Tensor]:
    r"""Nodes t and weights of an integral over [0, 1] for which log(1 + z) is the sum of the weights of z / (1 + t z).

    This holds for all complex z with :math:`|z| \le L`, up to rounding in the dtype. The integrand has a pole at
    :math:`t = -1/z`, which is close to 1 where z is close to -1, so the rule is that of Gauss and Legendre in the
    variable :math:`-\log(1/L - t)`. It takes 27 nodes in float64 for L = 0.99.

    Args:
        lipschitz: The bound L, in [0, 1).
        like: A tensor of the dtype and on the device of the result.

    Example:
        >>> nodes, weights = log_quadrature(0.9, torch.zeros(1, dtype=torch.float64))
        >>> round(float((weights * -0.8 / (1 - 0.8 * nodes)).sum() - math.log(0.2)), 12)
        0.0
    """
    return _rule(lipschitz, like.dtype, like.device)


@functools.lru_cache(maxsize=64)
def _rule(lipschitz: float, dtype: torch.dtype, device: torch.device) -> tuple[Tensor, Tensor]:
    bound = max(lipschitz, 0.5)  # any upper bound of L will do, and the change of variables needs one above zero
    length = -math.log1p(-bound)
    count = math.ceil(7 + 5 * length) if dtype == torch.float64 else math.ceil(4 + 2.5 * length)
    places, weights = np.polynomial.legendre.leggauss(count)
    gap = np.exp(-length * (1 + places) / 2) / bound
    with as_constants():
        found = [torch.from_numpy(each) for each in (1 / bound - gap, weights * gap * length / 2)]
        return found[0].to(device=device, dtype=dtype), found[1].to(device=device, dtype=dtype)


class HessenbergLog:
    r"""The terms of :math:`e_1^T \log(I + H_m)\, e_1` for Hessenberg matrices H_m that grow by a column at a time.

    For every node t of a quadrature the matrix :math:`I + t H_m` is factored into triangular matrices. It needs no
    pivots, since its symmetric part is positive definite if the norm of :math:`H_m` is below 1. A new column extends
    the factors, and gives the change of the integrand :math:`e_1^T H_m (I + t H_m)^{-1} e_1` from one order to the next
    without cancellation. All operations act row by row, and are differentiable any number of times.

    Args:
        nodes: The nodes t, of shape ``(nodes,)``.

    Example:
        >>> grown = HessenbergLog(torch.tensor([0.5]))
        >>> change, last = grown.append(torch.tensor([0.5]), None)
        >>> change, last  # 0.5 / (1 + 0.5 t) and 1 / (1 + 0.5 t)
        (tensor([0.4000]), tensor([0.8000]))
    """

    def __init__(self, nodes: Tensor) -> None:
        self.nodes = nodes
        self._pivot = torch.ones_like(nodes)  # the last entry on the diagonal of the upper factor
        self._multipliers: list[Tensor] = []  # of the lower factor
        self._first: list[Tensor] = []  # the first row of the inverse of the upper factor
        self._right: Tensor | None = None  # the last entry of the solution with the lower factor, divided by t

    def append(self, column: Tensor, below: Tensor | None) -> tuple[Tensor, Tensor]:
        r"""The change of the integrand at all nodes, and the last entry of :math:`(I + t H_m)^{-1} e_1` there.

        Args:
            column: The entries :math:`h_{1 m}, ..., h_{m m}`, of shape ``(m,) + batch_shape``.
            below: The entry :math:`h_{m, m-1}` below the diagonal in the column before; None for the first column.

        Returns:
            Two tensors of shape ``batch_shape + (nodes,)``.
        """
        nodes = self.nodes
        if below is not None:
            multiplier = below.unsqueeze(-1) / self._pivot
            self._right = -multiplier if self._right is None else -multiplier * nodes * self._right
            self._multipliers.append(multiplier * nodes)
        upper, *rows = (nodes * column.unsqueeze(-1)).unbind()
        total: Tensor | None = None
        for row, multiplier, first in zip(rows, self._multipliers, self._first, strict=True):
            total = first * upper if total is None else torch.addcmul(total, first, upper)
            upper = torch.addcmul(row, multiplier, upper, value=-1)
        self._pivot = 1 + upper
        if self._right is None or total is None:
            first = last = 1 / self._pivot
            change = column[0].unsqueeze(-1) * first
        else:
            first, last = -total / self._pivot, nodes * self._right / self._pivot
            change = -first * self._right
        self._first.append(first)
        return change, last
