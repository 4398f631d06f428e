"""Matrices over the real, the complex or the quaternionic numbers, and the coordinates in which they act on an event.

All equivariant linear maps of one isotypic component are the m x m matrices over one of these three algebras, where m
is the number of copies of the irrep. An element is stored by its 1, 2 or 4 real coefficients, the real part first.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups import Isotype

__all__ = [
    "algebra_change",
    "algebra_exp",
    "algebra_inverse",
    "algebra_log",
    "algebra_product",
    "algebra_rows",
    "as_real",
    "coefficients",
]


def as_real(entries: Tensor) -> Tensor:
    """The real matrix of a matrix over an algebra: each entry becomes the matrix of multiplication by it from the left.

    Args:
        entries: The coefficients, shape ``batch + (m, n, k)`` with k = 1 (real), 2 (complex) or 4 (quaternionic).

    Returns:
        Shape ``batch + (m * k, n * k)``.

    Example:
        >>> as_real(torch.tensor([[[2.0, 3.0]]])).tolist()  # 2 + 3i
        [[2.0, -3.0], [3.0, 2.0]]
    """
    parts = entries.unbind(-1)
    if len(parts) == 1:
        return parts[0]
    if len(parts) == 2:
        a, b = parts
        rows = [[a, -b], [b, a]]
    else:
        a, b, c, d = parts
        rows = [[a, -b, -c, -d], [b, a, -d, c], [c, d, a, -b], [d, -c, b, a]]
    stacked = torch.stack([torch.stack(row, -1) for row in rows], -2)  # (..., m, n, k, k)
    return stacked.transpose(-3, -2).flatten(-2, -1).flatten(-3, -2)


def coefficients(matrix: Tensor, kind: int) -> Tensor:
    """The inverse of :func:`as_real`; of another real matrix, the coefficients of the nearest one of that form.

    Args:
        matrix: A real matrix, shape ``(m * k, n * k)``.
        kind: The number k of coefficients of an entry.

    Example:
        >>> coefficients(torch.tensor([[2.0, -3.0], [3.0, 2.0]]), 2).tolist()
        [[[2.0, 3.0]]]
    """
    blocks = matrix.unflatten(0, (-1, kind)).unflatten(-1, (-1, kind))  # (m, k, n, k)
    units = as_real(torch.eye(kind).to(matrix)[:, None, None])
    return torch.einsum("ckl,mknl->mnc", units, blocks) / kind


def algebra_exp(entries: Tensor) -> Tensor:
    r"""The exponential of elements, :math:`e^{a + v} = e^a (\cos|v| + v \sin|v| / |v|)` for a real a and imaginary v.

    Args:
        entries: The coefficients, shape ``batch + (k,)``.

    Example:
        >>> algebra_exp(torch.tensor([0.0, 1.0]))
        tensor([0.5403, 0.8415])
    """
    scale = entries[..., :1].exp()
    if entries.shape[-1] == 1:
        return scale
    imaginary = entries[..., 1:]
    square = imaginary.square().sum(-1, keepdim=True)
    # near 0 by the series, since the norm has no gradient there
    small = square < 1e-4
    norm = torch.where(small, torch.ones_like(square), square).sqrt()
    ratio = torch.where(small, 1 - square / 6 * (1 - square / 20 * (1 - square / 42)), norm.sin() / norm)
    cosine = torch.where(small, 1 - square / 2 * (1 - square / 12 * (1 - square / 30)), norm.cos())
    return scale * torch.cat([cosine, imaginary * ratio], -1)


def algebra_log(entries: Tensor) -> Tensor:
    """Logarithms of elements other than 0: the inverse of :func:`algebra_exp`; of real numbers, that of the modulus.

    Args:
        entries: The coefficients, shape ``batch + (k,)``.

    Example:
        >>> algebra_log(torch.tensor([-1.0, 0.0])), algebra_log(torch.tensor([-1.0]))
        (tensor([0.0000, 3.1416]), tensor([0.]))
    """
    modulus = entries.square().sum(-1, keepdim=True).sqrt()
    if entries.shape[-1] == 1:
        return modulus.log()
    imaginary = entries[..., 1:]
    norm = imaginary.square().sum(-1, keepdim=True).sqrt()
    first = torch.zeros_like(imaginary)
    first[..., 0] = 1.0  # a negative real number has logarithms in every imaginary direction
    direction = torch.where(norm > 0, imaginary / norm.clamp_min(torch.finfo(norm.dtype).tiny), first)
    return torch.cat([modulus.log(), direction * torch.atan2(norm, entries[..., :1])], -1)


def algebra_product(first: Tensor, second: Tensor) -> Tensor:
    """The products of elements.

    Args:
        first: The coefficients of the factors on the left, shape ``batch + (k,)``.
        second: The coefficients of the factors on the right, of a batch shape that broadcasts.

    Example:
        >>> algebra_product(torch.tensor([0.0, 1.0]), torch.tensor([0.0, 1.0])).tolist()  # i * i = -1
        [-1.0, 0.0]
    """
    return (as_real(first[..., None, None, :]) @ second[..., None]).squeeze(-1)


def algebra_inverse(entries: Tensor) -> Tensor:
    """The inverses of elements other than 0.

    Args:
        entries: The coefficients, shape ``batch + (k,)``.

    Example:
        >>> algebra_inverse(torch.tensor([0.0, 2.0])).tolist()
        [0.0, -0.5]
    """
    conjugate = torch.cat([entries[..., :1], -entries[..., 1:]], -1)
    return conjugate / entries.square().sum(-1, keepdim=True)


def algebra_rows(isotype: Isotype) -> Tensor:
    """Orthonormal rows of an isotypic component in whose coordinates its equivariant maps are those of :func:`as_real`.

    The coordinates are in the order (copy, coefficient, rest). An equivariant linear map acts as ``as_real(entries)``
    on copies and coefficients, and leaves the rest alone.

    Args:
        isotype: The component, m copies of an irrep of dimension d.

    Returns:
        Shape ``(m * d, numel)``.

    Example:
        >>> from pyro_gflows import VectorAction
        >>> algebra_rows(VectorAction.plane("C4").decomposition[0]).shape
        torch.Size([2, 2])
    """
    change = algebra_change(isotype.commutant)
    return torch.einsum("krd,mdn->mkrn", change, isotype.basis).flatten(0, 2)


def algebra_change(commutant: Tensor) -> Tensor:
    """The orthogonal change of basis of an irrep after which the maps that commute with it are those of `as_real`.

    Args:
        commutant: An orthogonal basis of these maps, the identity first, shape ``(k, d, d)``.

    Returns:
        Shape ``(k, d / k, d)``: for each coefficient the rest of the coordinates.

    Example:
        >>> algebra_change(torch.eye(3).double()[None]).shape
        torch.Size([1, 3, 3])
    """
    units = list(commutant[: 2 if len(commutant) == 2 else 3])
    if len(commutant) == 4:
        units.append(units[1] @ units[2])  # so that the product of the first two units is the third on every machine
    vectors: list[Tensor] = []
    dim = commutant.shape[-1]
    for place in range(dim):
        vector = torch.zeros(dim, dtype=torch.float64)
        vector[place] = 1.0
        for _ in range(2):  # twice, against rounding
            for known in vectors:
                vector = vector - known * (known @ vector)
        if vector.norm() > 0.5 / dim**0.5:
            vectors += [unit @ (vector / vector.norm()) for unit in units]
    assert len(vectors) == dim
    return torch.stack(vectors).unflatten(0, (-1, len(units))).transpose(0, 1)
