r"""Isotypic decomposition of a representation, computed from its matrices.

By Schur's lemma a representation is :math:`\bigoplus_i \mathbb{R}^{m_i} \otimes V_i` and every map that commutes with
the group is a small matrix on each multiplicity space. The irreducible subspaces are the eigenspaces of a random
symmetric matrix after averaging over the group; the average is exact (all elements, or a quadrature that integrates
every polynomial that occurs), so the bases are good to float64 precision. Within each subspace the basis is canonical,
because the eigenvectors of a degenerate eigenvalue are decided by rounding, and weights mean something only in the
basis they were trained in.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from pyro_gflows.actions.canonical import Nearly, canonical_rows
from pyro_gflows.actions.constants import as_constants
from pyro_gflows.actions.groups import Group
from pyro_gflows.actions.representations import Representation

__all__ = ["Isotype", "decompose", "intertwiner", "irreducible_subspaces", "is_trivial", "isotypes_of", "merge"]

_TOLERANCE = 1e-8


@dataclass(frozen=True)
class Isotype:
    r"""One irreducible representation V, and where it sits in the event.

    Attributes:
        basis: shape ``(m, d, D)``; row (a, i) is the i-th basis vector of the a-th copy, all rows orthonormal, and
            every copy carries the same matrices.
        commutant: shape ``(1 | 2 | 4, d, d)``; an orthogonal basis of the maps that commute with V (the identity
            first): the type of V is real, complex or quaternionic.
        representation: where ``V`` was first found, with the rows that carry it.
        labels: for each copy, the index of the summand of the direct sum it lies in.
        is_trivial: V is the trivial representation.
    """

    basis: Tensor
    commutant: Tensor
    representation: tuple[Representation, Tensor]
    labels: tuple[int, ...]
    is_trivial: bool

    @property
    def multiplicity(self) -> int:
        return self.basis.shape[0]

    @property
    def dim(self) -> int:
        return self.basis.shape[1]

    def irrep(self, elements: Tensor) -> Tensor:
        """The matrices of V, shape ``batch + (d, d)``."""
        representation, rows = self.representation
        return rows @ representation.matrices(elements) @ rows.T


def _average(group: Group, band: int, left: Representation, middle: Tensor, right: Representation) -> Tensor:
    elements, weights = group.quadrature(band)
    images = left.matrices(elements) @ middle @ right.matrices(elements).mT
    return torch.einsum("g,gij->ij", weights, images)


def _orthogonal(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix."""
    u, _, vh = torch.linalg.svd(matrix)
    return u @ vh


def intertwiner(first: Isotype, second: Isotype) -> Tensor | None:
    """An orthogonal T with V2(g) T = T V1(g), or None where the two are different irreps."""
    (rep1, rows1), (rep2, rows2) = first.representation, second.representation
    if rep1 == rep2 and Nearly(rows1) == Nearly(rows2):
        return torch.eye(first.dim, dtype=torch.float64)
    if first.dim != second.dim or len(first.commutant) != len(second.commutant):
        return None
    elements, weights = rep1.group.quadrature(rep1.band + rep2.band)
    generator = torch.Generator().manual_seed(1)
    seed = torch.randn(first.dim, first.dim, generator=generator, dtype=torch.float64)
    averaged = torch.einsum("g,gij->ij", weights, second.irrep(elements) @ seed @ first.irrep(elements).mT)
    if averaged.norm() < _TOLERANCE * seed.norm():
        return None
    return _orthogonal(averaged)


def _commutant(representation: Representation, rows: Tensor) -> Tensor:
    """An orthogonal basis (identity first) of the maps that commute with the irrep spanned by ``rows``."""
    d = len(rows)
    found = [torch.eye(d, dtype=torch.float64)]
    generator = torch.Generator().manual_seed(2)
    for _ in range(3 if d > 1 else 0):
        seed = torch.randn(d, d, generator=generator, dtype=torch.float64)
        middle = rows.T @ (seed - seed.T) @ rows
        averaged = rows @ _average(
            representation.group, 2 * representation.band, representation, middle, representation
        )
        unit = averaged @ rows.T
        for known in found:
            unit = unit - known * (unit * known).sum() / d
        if unit.norm() < _TOLERANCE * seed.norm():
            break
        found.append(_orthogonal(unit))
    return torch.stack(found)


def irreducible_subspaces(representation: Representation) -> list[Tensor]:
    """Orthonormal rows that span irreducible subspaces, as the eigenvectors of the random symmetric matrix whose
    eigenvalues are best separated. The subspaces are reproducible, the bases of those of more dimensions are not."""
    best: tuple[float, list[Tensor]] = (-1.0, [])
    generator = torch.Generator().manual_seed(0)
    for _ in range(8):
        seed = torch.randn(representation.size, representation.size, generator=generator, dtype=torch.float64)
        seed = seed + seed.T
        averaged = _average(representation.group, 2 * representation.band, representation, seed, representation)
        values, vectors = torch.linalg.eigh((averaged + averaged.T) / 2)
        gaps = values.diff()
        cuts = [int(i) + 1 for i in torch.nonzero(gaps > _TOLERANCE * values.abs().max())]
        separation = min([float(gaps[cut - 1]) for cut in cuts], default=1.0)
        spaces = [space.T for space in torch.tensor_split(vectors, cuts, dim=1)]
        if separation > best[0]:
            best = (separation, spaces)
    return best[1]


def is_trivial(representation: Representation, rows: Tensor) -> bool:
    """Whether the rows are one vector that every element of the group leaves alone."""
    elements, _ = representation.group.quadrature(2 * representation.band)
    return len(rows) == 1 and bool((rows @ representation.matrices(elements) @ rows.T - 1).abs().max() < _TOLERANCE)


@functools.lru_cache(maxsize=256)
@as_constants()
def decompose(representation: Representation) -> list[Isotype]:
    """The isotypic components of one representation in canonical bases, the trivial one first, then by dimension."""
    return isotypes_of(
        representation, [canonical_rows(rows.T @ rows) for rows in irreducible_subspaces(representation)]
    )


def isotypes_of(representation: Representation, subspaces: Sequence[Tensor]) -> list[Isotype]:
    """The isotypic components, from irreducible subspaces that add up to the whole space."""
    singles = [
        Isotype(
            rows[None],
            _commutant(representation, rows),
            (representation, rows),
            (0,),
            is_trivial(representation, rows),
        )
        for rows in subspaces
    ]
    return merge([singles], [0], representation.size)


def merge(parts: Sequence[Sequence[Isotype]], offsets: Sequence[int], size: int) -> list[Isotype]:
    """Isotypic components of a direct sum, from those of its summands, which start at ``offsets`` of the event."""
    found: list[tuple[Isotype, list[Tensor], list[int]]] = []
    for label, (part, offset) in enumerate(zip(parts, offsets, strict=True)):
        for isotype in part:
            rows = torch.zeros(isotype.multiplicity, isotype.dim, size, dtype=torch.float64)
            rows[..., offset : offset + isotype.basis.shape[-1]] = isotype.basis
            # copies of one field hold the very same irreps: no average over the group is needed to see it
            same = [entry for entry in found if entry[0].representation[1] is isotype.representation[1]]
            for known, bases, labels in same or found:
                change = None if known.is_trivial != isotype.is_trivial else intertwiner(isotype, known)
                if change is not None:
                    bases.append(change @ rows)
                    labels += [label] * isotype.multiplicity
                    break
            else:
                found.append((isotype, [rows], [label] * isotype.multiplicity))
    merged = [
        Isotype(torch.cat(bases), known.commutant, known.representation, tuple(labels), known.is_trivial)
        for known, bases, labels in found
    ]
    return sorted(merged, key=lambda isotype: (not isotype.is_trivial, isotype.dim))
