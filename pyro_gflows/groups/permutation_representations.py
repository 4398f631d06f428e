"""Representations by permutations: of the elements of a group, of cosets, and of rows."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group, require_enumerable
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.numerics.constants import rows_at
from pyro_gflows.serialization.registry import registered

__all__ = ["QuotientRepresentation", "RegularRepresentation", "RowsRepresentation", "permutation_matrices"]


def permutation_matrices(targets: Tensor) -> Tensor:
    """The matrices P of permutations, with ``P[targets[j], j] = 1``, float64.

    Args:
        targets: The place to which each permutation sends each entry, shape ``batch + (n,)``.

    Example:
        >>> permutation_matrices(torch.tensor([1, 2, 0])).tolist()
        [[0.0, 0.0, 1.0], [1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]
    """
    places = torch.arange(targets.shape[-1], device=targets.device)
    return (targets[..., None, :] == places[:, None]).double()


class _Permutations(Representation):
    """A representation of a group by permutations of the coordinates, of which it holds the places and no matrices."""

    _places: Tensor

    def matrices(self, elements: Tensor) -> Tensor:
        return permutation_matrices(rows_at(self._places.to(elements.device), elements))

    def permutations(self) -> Tensor:
        return self._places

    def entries(self) -> frozenset[float]:
        return frozenset({0.0, 1.0} if self.size > 1 else {1.0})


@registered
class RegularRepresentation(_Permutations):
    """The regular representation: the group permutes its own elements, one coordinate of R^|G| for each.

    It holds every irreducible representation of the group, so networks take it for their hidden features.

    Args:
        group: The group, or its name.

    Raises:
        ValueError: The group is infinite.

    Example:
        >>> RegularRepresentation("D4").size
        8
    """

    name = "regular"

    def __init__(self, group: Group | str) -> None:
        self.group = require_enumerable(parse_group(group), "a regular representation")
        self.size = self.group.order
        self._places = self.group.regular()


@registered
class QuotientRepresentation(_Permutations):
    """The quotient representation: the group permutes the cosets g H of a subgroup H.

    A coset g H is the set of all products of g with an element of H. The representation has one coordinate for each of
    the |G|/|H| cosets, so it is smaller than the regular representation.

    Args:
        group: The group, or its name.
        subgroup: The indices of the elements of H.

    Raises:
        ValueError: The group is infinite, or the indices are not those of a subgroup.

    Example:
        >>> QuotientRepresentation("D4", [0, 4]).size  # element 4 of D4 is a reflection
        4
    """

    def __init__(self, group: Group | str, subgroup: Sequence[int]) -> None:
        self.group = require_enumerable(parse_group(group), "a quotient representation")
        self._places = self.group.coset_action(subgroup)
        self.size = self._places.shape[-1]
        self.name = f"quotient by {sorted(int(index) for index in subgroup)}"


@registered
class RowsRepresentation(_Permutations):
    """The symmetric group S_n permutes the rows of an n x ``features`` matrix.

    The matrix is flattened row by row. This is how relabeling acts on the parameters of mixture components. It holds a
    list of places for each permutation; for n > 6 there is ``RowsAction``, which holds none.

    Args:
        group: The symmetric group, or its name.
        features: The number of columns.

    Raises:
        ValueError: The group is not a symmetric group or n is larger than 6, or ``features`` is not positive.

    Example:
        >>> RowsRepresentation("S3", features=2).size
        6
    """

    def __init__(self, group: Group | str, features: int = 1) -> None:
        parsed = parse_group(group)
        if not isinstance(parsed, SymmetricGroup):
            raise ValueError(f"rows are permuted by a symmetric group such as 'S3', got {parsed}")
        if features < 1:
            raise ValueError(f"expected a positive number of features, got {features}")
        if not isinstance(parsed, EnumerableGroup):
            raise ValueError(
                f"the places of all rows are held for each permutation up to S6, got {parsed}, which has "
                f"{parsed.order_in_words} elements; use RowsAction({parsed.n}, features={features})"
            )
        self.group = parsed
        self._places = (features * parsed.permutations()[..., None] + torch.arange(features)).flatten(1)
        self.size = self._places.shape[-1]
        self.name = "rows" if features == 1 else f"rows of {features}"
