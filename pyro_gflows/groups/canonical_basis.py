"""Bases that are the same on every machine, and comparisons that allow for rounding."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

__all__ = ["Nearly", "canonical_rows", "first_largest"]

# A column is taken if its square is at least this fraction of the largest one's. No two columns of a projector that
# occurs in practice have squares in this ratio, so rounding does not decide which columns are taken.
_FRACTION = 0.3217


def canonical_rows(projector: Tensor) -> Tensor:
    r"""An orthonormal basis of the range of an orthogonal projector P, the same basis on every machine.

    Weights of a layer refer to a basis, so a saved flow needs the same basis on the machine that loads it. Eigenvectors
    and singular vectors of a degenerate space depend on rounding, so two machines find different ones, but the
    projector on the space is unique. The basis consists of the first independent columns of P, in order, made
    orthonormal one after the other (Gram-Schmidt). A column counts as independent of the columns before it if its
    remainder is at least 0.57 times as long as the longest remainder, so rounding in P is hardly amplified.

    Args:
        projector: The symmetric matrix P, shape ``(n, n)``, float64. Its trace is the dimension d of the space.

    Returns:
        Orthonormal rows, shape ``(d, n)``. Each row is positive at the column from which it was made.

    Example:
        >>> canonical_rows(torch.tensor([[0.5, 0.5], [0.5, 0.5]], dtype=torch.float64)).round(decimals=4).tolist()
        [[0.7071, 0.7071]]
    """
    left, found = projector, []
    for _ in range(round(float(projector.trace()))):
        squares = left.diagonal()
        column = int(torch.nonzero(squares >= _FRACTION * squares.max())[0])
        unit = left[column] / left[column].norm()
        found.append(unit)
        left = left - torch.outer(unit, unit @ left)
    # the polar factor, which is the unique nearest matrix with orthonormal rows, removes the rounding errors
    u, _, vh = torch.linalg.svd(torch.stack(found), full_matrices=False)
    return u @ vh


def first_largest(values: Tensor) -> int:
    """The first index at which the values are largest, where values that differ by rounding count as equal.

    Args:
        values: A vector whose entries are not negative.

    Example:
        >>> first_largest(torch.tensor([0.5, 1.0, 1.0 + 1e-12], dtype=torch.float64))
        1
    """
    return int(torch.nonzero(values >= (1 - 1e-6) * values.max())[0])


class Nearly:
    """A tensor that is equal to every tensor that differs from it by at most 1e-11 in each entry.

    Two machines compute the matrices of one representation with different rounding, and these shall count as the same
    representation.

    Args:
        value: A real tensor on the CPU.

    Example:
        >>> Nearly(torch.tensor([0.1 + 0.2], dtype=torch.float64)) == Nearly(torch.tensor([0.3], dtype=torch.float64))
        True
    """

    def __init__(self, value: Tensor) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Nearly) or self.value.shape != other.value.shape:
            return False
        if self.value is other.value:
            return True
        # in NumPy, so that no transform, mode or trace of torch records the comparison
        apart = np.abs(self.value.numpy() - other.value.numpy())
        return bool(apart.max(initial=0.0) <= 1e-11)

    def __hash__(self) -> int:
        return hash((type(self).__name__, self.value.shape))

    def __repr__(self) -> str:
        return f"Nearly({tuple(self.value.shape)})"
