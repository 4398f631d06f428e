"""Triangular factors of invertible matrices over the real, the complex or the quaternionic numbers."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.division_algebra import (
    algebra_exp,
    algebra_inverse,
    algebra_log,
    algebra_product,
    as_real,
    coefficients,
)

__all__ = ["TriangularFactors"]


class TriangularFactors(nn.Module):
    r"""An invertible m x m matrix :math:`P L D U` over the real, complex or quaternionic numbers.

    It is applied as a real matrix. P is a permutation, L and U are triangular with ones on the diagonal, and D is
    diagonal: exponentials of free elements and, over the real numbers, fixed signs. P and the signs are constants,
    which are saved with the weights. The inverse takes two triangular solves. At zero weights the matrix is P, with the
    signs.

    Args:
        size: The number m of rows and columns.
        kind: The number k of real coefficients of an entry: 1, 2 or 4.

    Shape:
        ``batch + (m * k, columns)`` for both directions, in the coordinates of
        :func:`~pyro_gflows.nn.division_algebra.algebra_rows`.

    Example:
        >>> factors = TriangularFactors(2, 1)
        >>> factors.assign_(torch.tensor([[0.0, 2.0], [-1.0, 3.0]]))
        >>> factors(torch.tensor([[1.0], [1.0]])).tolist()
        [[2.0], [2.0]]
    """

    def __init__(self, size: int, kind: int) -> None:
        super().__init__()
        self.size, self.kind = size, kind
        # below the diagonal L, above it U, on it the logarithms of D; the first axis is that of the coefficients
        self.weight = nn.Parameter(torch.zeros(kind, size, size))
        self.permutation = FixedBasis(torch.eye(size))
        self.signs = FixedBasis(torch.ones(size))

    def assign_(self, matrix: Tensor) -> None:
        """Set the factors so that their product is an invertible matrix.

        Args:
            matrix: The real matrix, shape ``(m * k, m * k)``, as ``as_real`` makes it.
        """
        rest = coefficients(matrix.detach().to("cpu", torch.float64), self.kind)
        lower, upper, logs = torch.zeros_like(rest), torch.zeros_like(rest), torch.zeros_like(rest[0])
        signs, order = torch.ones(self.size), list(range(self.size))
        for place in range(self.size):
            pivot = place + int(rest[place:, place].square().sum(-1).argmax())
            for rows in (rest, lower):
                rows[[place, pivot]] = rows[[pivot, place]]
            order[place], order[pivot] = order[pivot], order[place]
            diagonal = rest[place, place]
            logs[place], signs[place] = algebra_log(diagonal), diagonal[0].sign() if self.kind == 1 else 1.0
            inverse = algebra_inverse(diagonal)
            upper[place] = algebra_product(inverse, rest[place])
            lower[place + 1 :, place] = algebra_product(rest[place + 1 :, place], inverse)
            rest[place + 1 :] -= algebra_product(lower[place + 1 :, place][:, None], rest[place])
        lower, upper = (factor.movedim(-1, 0) for factor in (lower, upper))
        permutation = torch.zeros(self.size, self.size)
        permutation[order, torch.arange(self.size)] = 1.0
        with torch.no_grad():
            self.weight.copy_(lower.tril(-1) + torch.diag_embed(logs.T) + upper.triu(1))
            self.permutation.value.copy_(permutation)
            self.signs.value.copy_(signs)

    def forward(self, x: Tensor) -> Tensor:
        """The matrix times columns."""
        weight = self.weight.to(x)
        y = x + _real(weight.triu(1)) @ x
        y = self._scaled(y, 1)
        y = y + _real(weight.tril(-1)) @ y
        return self._permuted(self.permutation(x), y)

    def inverse(self, y: Tensor) -> Tensor:
        """The inverse matrix times columns."""
        weight = self.weight.to(y)
        x = self._permuted(self.permutation(y).T, y)
        x = torch.linalg.solve_triangular(_real(weight.tril(-1)), x, upper=False, unitriangular=True)
        x = self._scaled(x, -1)
        return torch.linalg.solve_triangular(_real(weight.triu(1)), x, upper=True, unitriangular=True)

    def log_scale(self) -> Tensor:
        """The sum of the logarithms of the moduli of D, a scalar; the log-det of the real matrix is k times it."""
        return self.weight[0].trace()

    def _scaled(self, columns: Tensor, sign: int) -> Tensor:
        """D, or its inverse for the sign -1, times columns."""
        entries = algebra_exp(sign * self.weight.to(columns).diagonal(dim1=-2, dim2=-1).T)
        entries = entries * self.signs(columns)[:, None]
        return (as_real(entries[:, None, None]) @ columns.unflatten(-2, (self.size, self.kind))).flatten(-3, -2)

    def _permuted(self, permutation: Tensor, columns: Tensor) -> Tensor:
        rows = columns.unflatten(-2, (self.size, self.kind)).flatten(-2)
        return (permutation @ rows).reshape(columns.shape)

    def extra_repr(self) -> str:
        return f"{self.size} x {self.size} over {['R', 'C', 'H'][self.kind // 2]}"


def _real(weight: Tensor) -> Tensor:
    return as_real(weight.movedim(0, -1))
