"""Exponentials of small matrices, and a smooth bound of their norm."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.numerics.precision import at_least_single

__all__ = ["expm_apply", "limit_norm", "low_rank_expm_apply", "low_rank_matrix", "matrix_exp"]


def low_rank_matrix(left: Tensor, coefficients: Tensor, right: Tensor) -> Tensor:
    """The matrix S = U diag(a) V^T, which is the sum over i of a_i u_i v_i^T.

    A conditioner builds an equivariant matrix in this way: if the u_i and v_i are equivariant functions of x and the
    a_i invariant ones, then S(g x) = rho(g) S(x) rho(g)^T for orthogonal rho.

    Args:
        left: U, of shape ``(..., d, r)``, with the vectors u_i as its columns.
        coefficients: a, of shape ``(..., r)``.
        right: V, of shape ``(..., d, r)``, with the vectors v_i as its columns.

    Raises:
        ValueError: If the shapes do not agree.

    Example:
        >>> low_rank_matrix(torch.ones(2, 1), torch.tensor([3.0]), torch.tensor([[1.0], [0.0]]))
        tensor([[3., 0.],
                [3., 0.]])
    """
    if left.dim() < 2 or left.shape[-2:] != right.shape[-2:] or coefficients.shape[-1:] != left.shape[-1:]:
        raise ValueError(
            "expected factors (..., d, r) and coefficients (..., r), got "
            f"{tuple(left.shape)}, {tuple(coefficients.shape)} and {tuple(right.shape)}"
        )
    return (left * coefficients.unsqueeze(-2)) @ right.mT


def limit_norm(matrix: Tensor, bound: float) -> Tensor:
    """The matrix S / sqrt(1 + (|S|_F / bound)^2): S scaled down so that its norm is below ``bound``.

    The map is smooth everywhere, also at zero, where it is the identity to second order. The Frobenius norm bounds the
    spectral norm and does not change under S -> Q S Q^T with orthogonal Q, so the map is equivariant.

    Args:
        matrix: S, of shape ``(..., d, d)``.
        bound: The bound of the Frobenius norm, positive.

    Raises:
        ValueError: If the bound is not positive and finite.

    Example:
        >>> bool(torch.linalg.matrix_norm(limit_norm(1e3 * torch.eye(2), 2.0)) < 2.0)
        True
    """
    if not 0 < bound < math.inf:
        raise ValueError(f"expected a positive finite bound, got {bound}")
    squared = (matrix / bound).square().sum((-2, -1), keepdim=True)
    return matrix / (1 + squared).sqrt()


@at_least_single
def matrix_exp(matrix: Tensor) -> Tensor:
    """The matrix exponential exp(S), computed in at least single precision; of the dtype of S.

    It is ``torch.linalg.matrix_exp`` where that is right. Its results on the CPU for bfloat16 and float16 are wrong by
    orders of magnitude. In float64 that of a single matrix whose norm is below 0.05 is wrong by up to 3e-10, as torch
    takes the degree of single precision for it; that of two matrices is not, so a single one is given to it twice.
    Inside ``torch.autocast`` the result is of float32.

    Args:
        matrix: S, of shape ``(..., d, d)``.

    Example:
        >>> matrix_exp(torch.zeros(2, 2).bfloat16())
        tensor([[1., 0.],
                [0., 1.]], dtype=torch.bfloat16)
    """
    if matrix.numel() != matrix.shape[-1] ** 2:
        exponential: Tensor = torch.linalg.matrix_exp(matrix)
        return exponential
    twice = torch.linalg.matrix_exp(matrix.reshape(matrix.shape[-2:]).expand(2, -1, -1))
    return twice[0].reshape(matrix.shape)


@at_least_single
def expm_apply(matrix: Tensor, x: Tensor, *, inverse: bool = False) -> tuple[Tensor, Tensor]:
    """The vector exp(S) x with the log-det tr S; with ``inverse``, exp(-S) x with -tr S.

    The map is a bijection for every S. The exponential is :func:`matrix_exp`, whose degree and scaling follow the norm
    of S. The error of a round trip is due to rounding, of the order of eps exp(2 |S|), so keep |S| moderate
    (:func:`limit_norm`). The cost is d^3 for each row, so this suits small d.

    If S(g c) = rho(g) S(c) rho(g)^T, the map is equivariant: exp(S(g c)) rho(g) x = rho(g) exp(S(c)) x.

    Args:
        matrix: S, of shape ``(..., d, d)``, which broadcasts with the batch shape of x.
        x: Vectors of shape ``(..., d)``.
        inverse: Whether to apply exp(-S).

    Returns:
        The vector, and the log-det of the batch shape.

    Raises:
        ValueError: If the matrix is not square of the size of x.

    Example:
        >>> y, log_det = expm_apply(torch.diag(torch.tensor([0.0, 1.0])), torch.ones(2))
        >>> y, log_det
        (tensor([1.0000, 2.7183]), tensor(1.))
    """
    if matrix.dim() < 2 or matrix.shape[-1] != matrix.shape[-2] or matrix.shape[-1:] != x.shape[-1:]:
        raise ValueError(
            f"expected a matrix (..., d, d) for x (..., d), got {tuple(matrix.shape)} and {tuple(x.shape)}"
        )
    signed = -matrix if inverse else matrix
    image = (matrix_exp(signed) @ x.unsqueeze(-1)).squeeze(-1)
    return image, signed.diagonal(dim1=-2, dim2=-1).sum(-1).expand(image.shape[:-1])


@at_least_single
def low_rank_expm_apply(
    x: Tensor, left: Tensor, coefficients: Tensor, right: Tensor, *, bound: float, inverse: bool = False
) -> tuple[Tensor, Tensor]:
    r"""The vector exp(S) x with the log-det tr S, for S = limit_norm(U diag(a) V^T, bound) that is never built.

    With the small matrix :math:`M = V^T U\,\mathrm{diag}(a)`, scaled as S is, :math:`e^S x = x + U\,\mathrm{diag}(a)\,
    \varphi(M)\,V^T x` with :math:`\varphi(M) = \sum_k M^k / (k + 1)!`. The cost is d r + r^3 for each row, where
    :func:`expm_apply` takes d^3.

    Args:
        x: Vectors of shape ``(..., d)``.
        left: U, of shape ``(..., d, r)``.
        coefficients: a, of shape ``(..., r)``.
        right: V, of shape ``(..., d, r)``.
        bound: The bound of the Frobenius norm of S, as for :func:`limit_norm`.
        inverse: Whether to apply exp(-S).

    Example:
        >>> factors = torch.randn(5, 2), torch.randn(2), torch.randn(5, 2)
        >>> x, matrix = torch.randn(5), limit_norm(low_rank_matrix(*factors), 3.0)
        >>> torch.allclose(low_rank_expm_apply(x, *factors, bound=3.0)[0], expm_apply(matrix, x)[0], atol=1e-4)
        True
    """
    scaled = left * coefficients.unsqueeze(-2)
    squared = ((scaled.mT @ scaled) * (right.mT @ right)).sum((-2, -1), keepdim=True) / bound**2
    shrink = (1 + squared).rsqrt() * (-1 if inverse else 1)
    small = shrink * (right.mT @ scaled)
    rank = small.shape[-1]
    unit = torch.eye(rank, dtype=small.dtype, device=small.device).expand_as(small)
    # the exponential of the block matrix [[M, 1], [0, 0]] holds phi(M) in its upper right block
    upper = torch.cat([small, unit], -1)
    phi = matrix_exp(torch.cat([upper, torch.zeros_like(upper)], -2))[..., :rank, rank:]
    image = x + (scaled @ (shrink * phi @ (right.mT @ x.unsqueeze(-1)))).squeeze(-1)
    return image, small.diagonal(dim1=-2, dim2=-1).sum(-1).expand(image.shape[:-1])
