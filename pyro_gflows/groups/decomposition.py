r"""Isotypic decomposition of a representation, computed from its matrices.

Every representation is a direct sum :math:`\bigoplus_i \mathbb{R}^{m_i} \otimes V_i` of copies of irreducible
representations, and every linear map that commutes with the group is a small matrix on each multiplicity space
:math:`\mathbb{R}^{m_i}` (Schur's lemma). The irreducible subspaces are the eigenspaces of a random symmetric matrix
after it is averaged over the group. The average is exact (over all elements, or by a quadrature that integrates every
polynomial that occurs), so the bases are good to float64 precision. Within each subspace the basis is canonical,
because the eigenvectors of a degenerate eigenvalue depend on rounding, and weights have a meaning only in the basis
in which they were trained.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from pyro_gflows.groups.averages import IrrepImages, RepresentationImages
from pyro_gflows.groups.canonical_basis import Nearly, canonical_rows
from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.finite import EnumerableGroup
from pyro_gflows.groups.isotypes import Isotype, Summands
from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.subspaces import irreducible_subspaces, is_trivial
from pyro_gflows.numerics.constants import as_constants

__all__ = ["decompose", "intertwiner", "isotypes_of", "merge", "side_by_side"]

_TOLERANCE = 1e-8


def _orthogonal(matrix: Tensor) -> Tensor:
    """The nearest orthogonal matrix."""
    u, _, vh = torch.linalg.svd(matrix)
    return u @ vh


def intertwiner(first: Isotype, second: Isotype) -> Tensor | None:
    """An equivariant linear map (intertwiner) from the irrep V1 of one component to the irrep V2 of another.

    Args:
        first: The component of V1.
        second: The component of V2.

    Returns:
        An orthogonal matrix T with V2(g) T = T V1(g), or None where the two irreps differ.

    Example:
        >>> from pyro_gflows.groups import RegularRepresentation
        >>> mean, *others = decompose(RegularRepresentation("C3"))
        >>> intertwiner(mean, mean).tolist(), [intertwiner(mean, other) for other in others]
        ([[1.0]], [None])
    """
    if first.is_trivial != second.is_trivial:
        return None
    if first.outer is not None and second.outer is not None:
        return _from_factors(first, second)
    if first.images is None or second.images is None:
        if first.dim != second.dim or len(first.commutant) != len(second.commutant):
            return None
    elif not first.images.is_equivalent(second.images):
        return None
    (rep1, rows1), (rep2, rows2) = first.representation, second.representation
    if rep1 == rep2 and Nearly(rows1) == Nearly(rows2):
        return torch.eye(first.dim, dtype=torch.float64)
    elements, weights = rep1.group.quadrature(rep1.band + rep2.band)
    generator = torch.Generator().manual_seed(1)
    seed = torch.randn(first.dim, first.dim, generator=generator, dtype=torch.float64)
    left, right = (one.irrep(elements) if one.images is None else one.images.matrices for one in (second, first))
    averaged = torch.einsum("g,gij->ij", weights, left @ seed @ right.mT)
    if averaged.norm() < _TOLERANCE * seed.norm():
        return None
    return _orthogonal(averaged)


def _from_factors(first: Isotype, second: Isotype) -> Tensor | None:
    """The equivariant linear map between irreps that are tensor products, from a map between the second factors."""
    if first.outer != second.outer:
        return None
    if first.inner is None or second.inner is None:
        return torch.eye(first.dim, dtype=torch.float64)
    inner = intertwiner(first.inner, second.inner)
    if inner is None:
        return None
    return torch.kron(torch.eye(first.dim // first.inner.dim, dtype=torch.float64), inner)


def _commutant(images: Tensor, weights: Tensor) -> Tensor:
    """An orthogonal basis, the identity first, of the linear maps that commute with an irrep.

    Args:
        images: The matrices of the irrep at the elements of a quadrature, shape ``(number of elements, d, d)``.
        weights: The weights of these elements.
    """
    d = images.shape[-1]
    found = [torch.eye(d, dtype=torch.float64)]
    generator = torch.Generator().manual_seed(2)
    for _ in range(3 if d > 1 else 0):
        seed = torch.randn(d, d, generator=generator, dtype=torch.float64)
        unit = torch.einsum("g,gij->ij", weights, images @ (seed - seed.T) @ images.mT)
        for known in found:
            unit = unit - known * (unit * known).sum() / d
        if unit.norm() < _TOLERANCE * seed.norm():
            break
        found.append(_orthogonal(unit))
    return torch.stack(found)


@functools.lru_cache(maxsize=256)
@as_constants()
def decompose(representation: Representation) -> Decomposition:
    """The isotypic components of one representation, in canonical bases.

    The trivial component comes first, and the others follow by the dimension of their irreps.

    Args:
        representation: The representation to decompose.

    Example:
        >>> from pyro_gflows.groups import RegularRepresentation
        >>> [(component.dim, component.type) for component in decompose(RegularRepresentation("C4"))]
        [(1, 'real'), (1, 'real'), (2, 'complex')]
    """
    known = representation.isotypes()
    if known is not None:
        return known
    return isotypes_of(
        representation, [canonical_rows(rows.T @ rows) for rows in irreducible_subspaces(representation)]
    )


def isotypes_of(representation: Representation, subspaces: Sequence[Tensor]) -> Decomposition:
    """The isotypic components of a representation whose irreducible subspaces are known.

    Args:
        representation: The representation.
        subspaces: Orthonormal rows of each irreducible subspace; together the subspaces are the whole space.

    Example:
        >>> from pyro_gflows.groups import RegularRepresentation
        >>> regular = RegularRepresentation("C3")
        >>> isotypes_of(regular, irreducible_subspaces(regular)).sizes
        [1, 2]
    """
    places = torch.arange(representation.size)[None]
    known: list[Isotype] = []
    copies: list[list[Tensor]] = []
    listed, images = isinstance(representation.group, EnumerableGroup), RepresentationImages(representation)
    for rows in subspaces:
        matrices = images.on_subspace(rows)
        single = Isotype(
            (),
            _commutant(matrices, images.weights),
            (representation, rows),
            is_trivial(representation, rows),
            torch.Size([representation.size]),
            images=IrrepImages(matrices) if listed else None,
        )
        match = _match(single, known)
        if match is None:
            known.append(single)
            copies.append([rows])
        else:
            index, change = match
            copies[index].append(change @ rows)
    found = [
        replace(
            isotype,
            summands=(Summands(_given(torch.stack(rows)), len(rows), places, (0,), (0,)),),
        )
        for isotype, rows in zip(known, copies, strict=True)
    ]
    return Decomposition(sorted(found, key=_rank))


def merge(
    parts: Sequence[Decomposition],
    places: Sequence[Tensor],
    event_shape: torch.Size,
    *,
    labels: Sequence[int] | None = None,
    too_large: str | None = None,
) -> Decomposition:
    """The isotypic components of a direct sum, put together from the components of its summands.

    Args:
        parts: The components of each summand. Summands that share one object count as alike.
        places: For each summand, the entries of the flattened event that it consists of.
        event_shape: The shape of one event.
        labels: For each summand, the index of its field. By default each summand is a field of its own.
        too_large: The reason why dense bases are not available, or None where they are.

    Example:
        >>> from pyro_gflows.groups import RegularRepresentation
        >>> one = decompose(RegularRepresentation("C2"))
        >>> both = merge([one, one], [torch.tensor([0, 1]), torch.tensor([2, 3])], torch.Size([4]))
        >>> [(component.multiplicity, component.dim) for component in both]
        [(2, 1), (2, 1)]
    """
    alike: dict[int, list[int]] = {}
    for order, part in enumerate(parts):
        alike.setdefault(id(part), []).append(order)
    known: list[Isotype] = []
    summands: list[list[Summands]] = []
    for orders in alike.values():
        stacked = torch.stack([places[order] for order in orders])
        fields = tuple(order if labels is None else labels[order] for order in orders)
        for isotype in parts[orders[0]]:
            match = _match(isotype, known)
            change = None if match is None else match[1]
            rows = isotype.basis if change is None else change @ isotype.basis
            group = Summands(_given(rows), len(rows), stacked, tuple(orders), fields)
            if match is None:
                known.append(isotype)
                summands.append([group])
            else:
                summands[match[0]].append(group)
    found = [
        replace(
            isotype,
            summands=tuple(groups),
            event_shape=event_shape,
            too_large=too_large,
        )
        for isotype, groups in zip(known, summands, strict=True)
    ]
    return Decomposition(sorted(found, key=_rank))


def side_by_side(parts: Sequence[Decomposition], sizes: Sequence[int]) -> Decomposition:
    """The isotypic components of vectors that consist of summands one after the other.

    Args:
        parts: The components of each summand.
        sizes: The number of coordinates of each summand.

    Example:
        >>> from pyro_gflows.groups import RegularRepresentation
        >>> one = decompose(RegularRepresentation("C2"))
        >>> side_by_side([one, one], [2, 2]).sizes
        [2, 2]
    """
    ends = list(itertools.accumulate(sizes, initial=0))
    return merge(parts, [torch.arange(*pair) for pair in itertools.pairwise(ends)], torch.Size([ends[-1]]))


def _match(isotype: Isotype, known: Sequence[Isotype]) -> tuple[int, Tensor] | None:
    """The index of the known component with the same irrep, and the change of basis to its V, if there is one."""
    # copies of one field share the tensors of their irreps, so no average over the group is needed to compare them
    same = [index for index, other in enumerate(known) if other.representation[1] is isotype.representation[1]]
    for index in same or range(len(known)):
        other = known[index]
        change = None if other.is_trivial != isotype.is_trivial else intertwiner(isotype, other)
        if change is not None:
            return index, change
    return None


def _given(rows: Tensor) -> Callable[[], Tensor]:
    return lambda: rows


def _rank(isotype: Isotype) -> tuple[bool, int]:
    return (not isotype.is_trivial, isotype.dim)
