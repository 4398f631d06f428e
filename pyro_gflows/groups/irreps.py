r"""Irreducible representations of SO(2), O(2), SO(3) and O(3), computed from rotation matrices with torch alone.

The bases are those of escnn. In the plane, the irrep of frequency k acts as the rotation by k times the angle, after a
reflection of the second axis where the element reflects. In space, the irrep of degree l acts on the real spherical
harmonics in the order m = -l, ..., l, so that degree 1 is the vector (y, z, x).
"""

from __future__ import annotations

import functools
import math

import torch
from torch import Tensor

from pyro_gflows.numerics.constants import as_constants

__all__ = ["evaluate_irrep"]


def evaluate_irrep(group: str, irrep: tuple[int, ...], elements: Tensor) -> Tensor:
    r"""The matrices of one irreducible representation (irrep) at the given rotations or reflections.

    The irrep of degree l of SO(3) is the part of highest degree of the product of degree l-1 with degree 1. An isometry
    :math:`C_l` selects this part, so :math:`D^l(R) = C_l^T (D^{l-1}(R) \otimes D^1(R)) C_l`. The result is exact up to
    a rounding error that grows in proportion to l.

    Args:
        group: "SO(2)", "O(2)", "SO(3)" or "O(3)".
        irrep: ``(frequency,)`` for a group of rotations alone; ``(parity, frequency)`` for a group with reflections.
        elements: Orthogonal matrices, shape ``(..., 2, 2)`` or ``(..., 3, 3)``.

    Returns:
        Orthogonal matrices, shape ``(..., d, d)``, in the dtype and on the device of the elements.

    Raises:
        ValueError: The group is another one, the name of the irrep has another form, or the elements have another
            shape.

    Example:
        >>> by_90_degrees = torch.tensor([[0.0, -1.0], [1.0, 0.0]], dtype=torch.float64)
        >>> evaluate_irrep("SO(2)", (2,), by_90_degrees).round().tolist()
        [[-1.0, -0.0], [0.0, -1.0]]
    """
    dimension = {"SO(2)": 2, "O(2)": 2, "SO(3)": 3, "O(3)": 3}.get(group)
    if dimension is None:
        raise ValueError(f"expected one of SO(2), O(2), SO(3), O(3), got {group!r}")
    if elements.shape[-2:] != (dimension, dimension):
        raise ValueError(f"expected elements of {group} of shape (..., {dimension}, {dimension}), got {elements.shape}")
    reflects = group.startswith("O")
    if len(irrep) != (2 if reflects else 1) or min(irrep) < 0:
        form = "(parity, frequency)" if reflects else "(frequency,)"
        raise ValueError(f"expected the name of an irrep of {group} as {form}, got {irrep}")
    parity, frequency = irrep if reflects else (0, irrep[0])
    if dimension == 3:
        determinant = torch.linalg.det(elements).sign()[..., None, None]
        return _space(frequency, elements * determinant) * determinant**parity
    if reflects and frequency > 0 and parity != 1:
        raise ValueError(f"expected parity 1 in an irrep of O(2) of frequency > 0, got {irrep}")
    return _plane(parity, frequency, elements)


def _plane(parity: int, frequency: int, elements: Tensor) -> Tensor:
    determinant = torch.linalg.det(elements).sign()
    if frequency == 0:
        return (determinant**parity)[..., None, None]
    angle = frequency * torch.atan2(elements[..., 1, 0], elements[..., 0, 0])
    c, s = angle.cos(), angle.sin()
    return torch.stack([torch.stack([c, -s * determinant], -1), torch.stack([s, c * determinant], -1)], -2)


def _space(degree: int, rotations: Tensor) -> Tensor:
    if degree == 0:
        return torch.ones_like(rotations[..., :1, :1])
    vector = rotations[..., [1, 2, 0], :][..., [1, 2, 0]]
    matrices = vector
    for level in range(2, degree + 1):
        isometry = _stretched(level).to(rotations)
        product = torch.einsum("...ij,...kl->...ikjl", matrices, vector)
        matrices = isometry.mT @ product.flatten(-4, -3).flatten(-2, -1) @ isometry
    return matrices


@functools.cache
@as_constants()
def _stretched(degree: int) -> Tensor:
    """The isometry from degree l into the product of degree l-1 with degree 1, shape ``(3 (2l-1), 2l+1)``.

    A Clebsch-Gordan coefficient of the highest degree is the square root of a ratio of binomial coefficients (of a
    hypergeometric probability).
    """
    below = degree - 1
    complex_basis = torch.zeros(2 * below + 1, 3, 2 * degree + 1, dtype=torch.complex128)
    for row in range(2 * below + 1):
        for column in range(3):
            ways = math.comb(2 * below, row) * math.comb(2, column) / math.comb(2 * degree, row + column)
            complex_basis[row, column, row + column] = math.sqrt(ways)
    real = torch.einsum("ai,bj,ijk,ck->abc", _real(below), _real(1), complex_basis, _real(degree).conj()).real
    return real.flatten(0, 1).contiguous()


def _real(degree: int) -> Tensor:
    """The unitary matrix from complex spherical harmonics (with the Condon-Shortley sign) to real ones."""
    matrix = torch.zeros(2 * degree + 1, 2 * degree + 1, dtype=torch.complex128)
    matrix[degree, degree] = 1.0
    for m in range(1, degree + 1):
        sign = (-1) ** m
        matrix[degree - m, [degree - m, degree + m]] = torch.tensor([1j, -1j * sign], dtype=torch.complex128)
        matrix[degree + m, [degree - m, degree + m]] = torch.tensor([1.0, sign], dtype=torch.complex128)
        matrix[[degree - m, degree + m]] *= math.sqrt(0.5)
    return matrix
