"""The principal logarithm of matrices."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["matrix_log"]

_NEAR = 0.25  # the distance from the identity at which the series takes over
_ROOTS, _ITERATIONS, _TERMS = 60, 40, 12


def matrix_log(matrix: Tensor) -> Tensor:
    """The principal logarithm of invertible matrices without eigenvalues on the negative real axis.

    Square roots are taken until the matrices are near the identity (inverse scaling and squaring), each by the
    iteration of Denman and Beavers; a series gives the logarithm there. It is meant for a few matrices that are set
    once: nothing is differentiated well, and near the negative axis or near singular matrices digits are lost.

    Args:
        matrix: Real or complex matrices of double precision, shape ``batch + (n, n)``.

    Raises:
        ValueError: The result is not a logarithm to six digits.

    Example:
        >>> matrix_log(torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)).round(decimals=4).tolist()
        [[0.0, -1.5708], [1.5708, 0.0]]
    """
    eye = torch.eye(matrix.shape[-1], dtype=matrix.dtype, device=matrix.device).expand_as(matrix)
    root, count = matrix, 0
    while float(torch.linalg.matrix_norm(root - eye).max()) > _NEAR and count < _ROOTS:
        root, count = _square_root(root, eye), count + 1
    ratio = torch.linalg.solve(root + eye, root - eye)  # log = 2 artanh((R - 1) / (R + 1))
    square = ratio @ ratio
    total = eye / (2 * _TERMS + 1)
    for term in range(_TERMS - 1, -1, -1):
        total = eye / (2 * term + 1) + square @ total
    logarithm: Tensor = 2.0 ** (count + 1) * (ratio @ total)
    error = torch.linalg.matrix_norm(torch.linalg.matrix_exp(logarithm) - matrix) / torch.linalg.matrix_norm(matrix)
    if not bool((error < 1e-6).all()):
        raise ValueError(
            "expected matrices with a well-conditioned logarithm, got one that is missed by "
            f"{float(error.max()):.2g} of its norm; it is nearly singular, or has an eigenvalue near the negative axis"
        )
    return logarithm


def _square_root(matrix: Tensor, eye: Tensor) -> Tensor:
    root, inverse = matrix, eye
    for _ in range(_ITERATIONS):
        root, inverse = (root + torch.linalg.inv(inverse)) / 2, (inverse + torch.linalg.inv(root)) / 2
        if float(torch.linalg.matrix_norm(root @ inverse - eye).max()) < 1e-14 * eye.shape[-1]:
            break
    return root
