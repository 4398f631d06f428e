"""Exponentials of small matrices, and a smooth bound of their norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.numerics.precision import at_least_single

__all__ = ["expm_apply", "limit_norm", "low_rank_matrix", "matrix_exp"]


def low_rank_matrix(left: Tensor, coefficients: Tensor, right: Tensor) -> Tensor:
    """S = U diag(a) V^T = sum over i of a_i u_i v_i^T.

    Equivariance: with u_i, v_i equivariant and a_i invariant, S(g x) = rho(g) S(x) rho(g)^T for an orthogonal rho.

    Arguments:
        left: U, of shape (..., d, r): the vectors u_i are its columns.
        coefficients: a, of shape (..., r).
        right: V, of shape (..., d, r).

    Raises:
        ValueError: the shapes do not agree.

    >>> low_rank_matrix(torch.ones(2, 1), torch.tensor([3.0]), torch.tensor([[1.0], [0.0]]))
    tensor([[3., 0.],
            [3., 0.]])
    """
    if left.dim() < 2 or left.shape[-2:] != right.shape[-2:] or coefficients.shape[-1:] != left.shape[-1:]:
        raise ValueError(
            "expected factors (..., d, r) and coefficients (..., r), received "
            f"{tuple(left.shape)}, {tuple(coefficients.shape)} and {tuple(right.shape)}"
        )
    return (left * coefficients.unsqueeze(-2)) @ right.mT


def limit_norm(matrix: Tensor, bound: float) -> Tensor:
    """S / sqrt(1 + (|S|_F / bound)^2): S with its norm kept below ``bound``, its direction unchanged.

    Smooth everywhere, zero included, and the identity to second order there. The Frobenius norm bounds the spectral
    norm and does not change under S -> Q S Q^T with orthogonal Q, so this is equivariant.

    Arguments:
        matrix: S, of shape (..., d, d).
        bound: of its Frobenius norm, positive.

    Raises:
        ValueError: bound is not positive and finite.

    >>> bool(torch.linalg.matrix_norm(limit_norm(1e3 * torch.eye(2), 2.0)) < 2.0)
    True
    """
    if not 0 < bound < math.inf:
        raise ValueError(f"expected a positive finite bound, received {bound}")
    squared = (matrix / bound).square().sum((-2, -1), keepdim=True)
    return matrix / (1 + squared).sqrt()


@at_least_single
def matrix_exp(matrix: Tensor) -> Tensor:
    """exp(S) by torch.linalg.matrix_exp, computed in at least single precision; of the dtype of S.

    On the CPU torch's own result for bfloat16 and float16 is not even of the right size. Inside ``torch.autocast`` the
    result is of float32.

    Arguments:
        matrix: S, of shape (..., d, d).

    >>> matrix_exp(torch.zeros(2, 2).bfloat16())
    tensor([[1., 0.],
            [0., 1.]], dtype=torch.bfloat16)
    """
    exponential: Tensor = torch.linalg.matrix_exp(matrix)
    return exponential


@at_least_single
def expm_apply(matrix: Tensor, x: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """exp(S) x with its log-det tr S, or exp(-S) x with -tr S for ``inverse``.

    Always a bijection. The exponential is :func:`matrix_exp`, whose degree and scaling follow the norm of S, so
    the error is that of rounding, of the order of eps exp(2 |S|) for a round trip: keep |S| moderate
    (:func:`limit_norm`). Cost d^3 for each row, so for small d.

    Equivariance: where S(g c) = rho(g) S(c) rho(g)^T, exp(S(g c)) rho(g) x = rho(g) exp(S(c)) x.

    Arguments:
        matrix: S, of shape (..., d, d), which broadcasts with the batch shape of x.
        x: of shape (..., d).
        inverse: whether to apply exp(-S).

    Returns:
        The image, and the log-det of the batch shape.

    Raises:
        ValueError: the matrix is not square of the size of x.

    >>> y, log_det = expm_apply(torch.diag(torch.tensor([0.0, 1.0])), torch.ones(2))
    >>> y, log_det
    (tensor([1.0000, 2.7183]), tensor(1.))
    """
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1:] != x.shape[-1:]:
        raise ValueError(
            f"expected a matrix (..., d, d) for x (..., d), received {tuple(matrix.shape)} and {tuple(x.shape)}"
        )
    signed = -matrix if inverse else matrix
    image = (matrix_exp(signed) @ x.unsqueeze(-1)).squeeze(-1)
    return image, signed.diagonal(dim1=-2, dim2=-1).sum(-1).expand(image.shape[:-1])
