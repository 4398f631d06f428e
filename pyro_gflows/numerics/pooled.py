"""Matrices that couple the rows of an event through a few pooled features, with their determinants and inverses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pyro_gflows.numerics.exact import log_abs_det
from pyro_gflows.numerics.transforms_active import transforming

__all__ = ["BranchWithPooledJacobian", "PooledBlock", "PooledJacobian"]


@dataclass(frozen=True)
class PooledBlock:
    """The derivatives of the rows of one block, for a map f_i = F(x_i, t) of rows x_i and pooled features t.

    Args:
        own: The derivative of each f_i in its own row, of shape ``batch + (n, d, d)``.
        reads: The derivative of each f_i in all r pooled features, of shape ``batch + (n, d, r)``.
        feeds: The derivative of all pooled features in each row, of shape ``batch + (n, r, d)``.

    Example:
        >>> block = PooledBlock(torch.zeros(3, 2, 2), torch.ones(3, 2, 1), torch.ones(3, 1, 2))
        >>> PooledJacobian([block]).log_abs_det()  # I + ones has the eigenvalue 1 + 6
        tensor(1.9459)
    """

    own: Tensor
    reads: Tensor
    feeds: Tensor


class PooledJacobian:
    r"""The Jacobian J of a map of rows that reads all rows through pooled features only, f_i = F(x_i, t).

    J is block-diagonal plus a product of low rank. With :math:`D_i = dF/dx_i`, :math:`L_i = dF/dt` and
    :math:`R_i = dt/dx_i`, its parts are :math:`J_{ij} = \delta_{ij} D_i + L_i R_j`. By the matrix determinant lemma and
    the formula of Woodbury, the determinant of I + J and its inverse take a time that is linear in the number of rows:

    .. math:: \log|\det(I + J)| = \sum_i \log|\det(I + D_i)| +
        \log\Big|\det\Big(I_r + \sum_i R_i\,(I + D_i)^{-1} L_i\Big)\Big|

    Rows of several kinds stand in several blocks, which share the pooled features. Features that belong to no row are
    one row of a block of their own.

    Args:
        blocks: The derivatives, block by block.

    Example:
        >>> block = PooledBlock(torch.zeros(3, 2, 2), torch.ones(3, 2, 1), torch.ones(3, 1, 2))
        >>> PooledJacobian([block]).solve([torch.full((3, 2), 7.0)])[0][0].round()
        tensor([1., 1.])
    """

    def __init__(self, blocks: Sequence[PooledBlock]) -> None:
        self.blocks = list(blocks)

    def log_abs_det(self) -> Tensor:
        """The logarithm log|det(I + J)|, of the batch shape."""
        own = [_plus_one(block.own) for block in self.blocks]
        total = torch.stack([log_abs_det(matrix).sum(-1) for matrix in own]).sum(0)
        solved = [_solve(matrix, block.reads) for matrix, block in zip(own, self.blocks, strict=True)]
        return total + log_abs_det(self._capacity(solved))

    def solve(self, vectors: Sequence[Tensor]) -> list[Tensor]:
        """The solution s of (I + J) s = v.

        Args:
            vectors: v, the rows of each block, of shape ``batch + (n, d)``.
        """
        own, solved, first = [_plus_one(block.own) for block in self.blocks], [], []
        for matrix, block, vector in zip(own, self.blocks, vectors, strict=True):
            # one factorization for both right-hand sides
            both = _solve(matrix, torch.cat([block.reads, vector.unsqueeze(-1)], -1))
            solved.append(both[..., :-1])
            first.append(both[..., -1:])
        pooled = torch.stack(
            [(block.feeds @ part).sum(-3) for block, part in zip(self.blocks, first, strict=True)]
        ).sum(0)
        shared = _solve(self._capacity(solved), pooled).unsqueeze(-3)
        return [(part - reads @ shared).squeeze(-1) for part, reads in zip(first, solved, strict=True)]

    def _capacity(self, solved: Sequence[Tensor]) -> Tensor:
        """The matrix I_r + sum_i R_i (I + D_i)^-1 L_i."""
        return _plus_one(
            torch.stack([_summed(block.feeds, part) for block, part in zip(self.blocks, solved, strict=True)]).sum(0)
        )

    def without_means(self, columns: Sequence[Tensor]) -> PooledJacobian:
        r"""A matrix for the map between mean-free features: with J the map before the means are taken off, J P.

        Here P takes the mean over the rows off the features that are named. On events whose features are mean-free,
        the Jacobian of the projected map is P J P, and :math:`\det(I + P J P) = \det(I + J P)`. For such an event v,
        P s solves :math:`(I + P J P)\,s = v` if :math:`(I + J P)\,s = v`.

        Args:
            columns: For each block, the indices of its mean-free features.
        """
        # P = I - E E^T with orthonormal columns E, one for each mean-free feature; J P = D + L R - (D E + L R E) E^T
        parts = list(zip(self.blocks, columns, strict=True))
        read = torch.cat([block.feeds.sum(-3).index_select(-1, index) * _root(block) for block, index in parts], -1)
        found, start = [], 0
        for block, index in parts:
            around = (start, read.shape[-1] - start - len(index))
            own = block.own.index_select(-1, index) * _root(block)
            reads = -(torch.nn.functional.pad(own, around) + block.reads @ read.unsqueeze(-3))
            means = torch.eye(block.own.shape[-1], dtype=own.dtype, device=own.device) * _root(block)
            means = torch.nn.functional.pad(means.index_select(0, index), (0, 0, *around))
            feeds = means.expand(*block.feeds.shape[:-2], *means.shape)
            both = torch.cat([block.reads, reads], -1), torch.cat([block.feeds, feeds], -2)
            found.append(PooledBlock(block.own, *both))
            start += len(index)
        return PooledJacobian(found)

    def negative(self) -> PooledJacobian:
        """The matrix -J."""
        return PooledJacobian([PooledBlock(-block.own, -block.reads, block.feeds) for block in self.blocks])

    def transposed(self) -> PooledJacobian:
        """The transpose of J."""
        return PooledJacobian([PooledBlock(block.own.mT, block.feeds.mT, block.reads.mT) for block in self.blocks])

    def dense(self) -> Tensor:
        """The matrix J itself, of shape ``batch + (d, d)``, where d is the number of coordinates of all rows."""
        reads = torch.cat([block.reads.flatten(-3, -2) for block in self.blocks], -2)
        feeds = torch.cat([block.feeds.movedim(-3, -2).flatten(-2) for block in self.blocks], -1)
        matrix = reads @ feeds
        start = 0
        for block in self.blocks:
            for row in block.own.unbind(-3):
                stop = start + row.shape[-1]
                matrix[..., start:stop, start:stop] = matrix[..., start:stop, start:stop] + row
                start = stop
        return matrix


@runtime_checkable
class BranchWithPooledJacobian(Protocol):
    """The type of a branch f of events of rows that gives its Jacobian by the pooled features through which it reads.

    :class:`PooledLogDet` and :class:`PooledNewtonSolver` take such a branch; the ready-made one is
    :class:`~pyro_gflows.nn.PooledBranch`.

    Example:
        >>> from pyro_gflows.numerics import as_branch
        >>> isinstance(as_branch(torch.sin, 1), BranchWithPooledJacobian)
        False
    """

    def call_and_pooled_jacobian(self, x: Tensor) -> tuple[Tensor, PooledJacobian]:
        """The value f(x), and a matrix with the determinant of I + J."""
        ...

    def solve_pooled(self, jacobian: PooledJacobian, vector: Tensor) -> Tensor:
        """The solution s of (I + J) s = v for an event v, where J is that matrix, its transpose or its negative."""
        ...


def _root(block: PooledBlock) -> float:
    """One over the root of the number of rows."""
    return float(block.own.shape[-3] ** -0.5)


def _plus_one(matrix: Tensor) -> Tensor:
    return matrix + torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device)


def _solve(matrix: Tensor, right: Tensor) -> Tensor:
    if transforming():
        return _solve_expanded(matrix, right)
    # solve_ex marks a singular matrix in its own row, where solve would raise for the whole batch
    found: Tensor = torch.linalg.solve_ex(matrix, right)[0]
    return found


def _solve_expanded(matrix: Tensor, right: Tensor) -> Tensor:
    """The solution with its derivatives up to the third, by the power series about the matrix itself.

    It serves forward mode, in which the second derivative of torch's solve_ex is wrong.
    """
    constant = matrix.detach()
    inverse, _ = torch.linalg.inv_ex(constant)
    change = inverse @ (matrix - constant)  # its value is zero, its derivatives are not
    found = inverse @ right
    term = found
    for _ in range(3):
        term = -change @ term
        found = found + term
    return found


def _summed(feeds: Tensor, solved: Tensor) -> Tensor:
    """The sum over the rows of the products of two matrices each, as one product of two wide matrices."""
    wide = feeds.movedim(-3, -2).flatten(-2)
    return wide @ solved.flatten(-3, -2)
