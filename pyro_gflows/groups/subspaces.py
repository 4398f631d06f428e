"""The irreducible subspaces of a representation, from averages over the group."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups.averages import RepresentationImages
from pyro_gflows.groups.representations import Representation

__all__ = ["irreducible_subspaces", "is_trivial"]

_TOLERANCE = 1e-8


def irreducible_subspaces(representation: Representation) -> list[Tensor]:
    """Orthonormal rows of each irreducible subspace of a representation.

    The rows are eigenvectors of an averaged random symmetric matrix, and out of several such matrices the one whose
    eigenvalues are best separated is taken. The subspaces are reproducible, but the basis within a subspace of two or
    more dimensions is not.

    Args:
        representation: The representation to take apart.

    Example:
        >>> from pyro_gflows.groups import RegularRepresentation
        >>> sorted(len(rows) for rows in irreducible_subspaces(RegularRepresentation("C3")))
        [1, 2]
    """
    best: tuple[float, list[Tensor]] = (-1.0, [])
    generator = torch.Generator().manual_seed(0)
    images = RepresentationImages(representation)
    for _ in range(8):
        seed = torch.randn(representation.size, representation.size, generator=generator, dtype=torch.float64)
        seed = seed + seed.T
        averaged = images.average(seed)
        values, vectors = torch.linalg.eigh((averaged + averaged.T) / 2)
        gaps = values.diff()
        cuts = [int(i) + 1 for i in torch.nonzero(gaps > _TOLERANCE * values.abs().max())]
        separation = min([float(gaps[cut - 1]) for cut in cuts], default=1.0)
        spaces = [space.T for space in torch.tensor_split(vectors, cuts, dim=1)]
        if separation > best[0]:
            best = (separation, spaces)
    return best[1]


def is_trivial(representation: Representation, rows: Tensor) -> bool:
    """Whether the rows are a single vector that every group element leaves as it is.

    Args:
        representation: How the group acts.
        rows: Orthonormal rows, shape ``(d, representation.size)``.

    Example:
        >>> from pyro_gflows.groups import RegularRepresentation
        >>> is_trivial(RegularRepresentation("C4"), torch.full((1, 4), 0.5, dtype=torch.float64))
        True
    """
    if len(rows) != 1:
        return False
    # what generators leave as it is, all their products leave as it is
    images = rows @ representation.matrices(representation.group.generators()) @ rows.T
    return bool(((images - 1).abs() < _TOLERANCE).all())
