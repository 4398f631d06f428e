"""LiftedRepresentation: a representation of one factor as one of a direct product."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from torch import Tensor

from pyro_gflows.groups.components import Decomposition
from pyro_gflows.groups.decomposition import decompose
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.representations import Representation
from pyro_gflows.serialization.registry import registered

__all__ = ["LiftedRepresentation"]


@registered
class LiftedRepresentation(Representation):
    r"""A representation of one factor of a direct product, by which the whole product acts: :math:`\rho(g_i)`.

    The other factors leave the vectors as they are. It holds no table, so it serves products of any factors, large or
    continuous ones included.

    Args:
        representation: The representation :math:`\rho` of the factor.
        product: The direct product.
        index: The index i of the factor.

    Raises:
        ValueError: The product has no factor of this index, or the representation is of another group.

    Example:
        >>> from pyro_gflows.groups import DefiningRepresentation, parse_group
        >>> LiftedRepresentation(DefiningRepresentation("O(2)"), parse_group("C2^20 x O(2)"), 1)
        defining of C2^20 x O(2)
    """

    group: ProductGroup

    def __init__(self, representation: Representation, product: ProductGroup, index: int) -> None:
        if not isinstance(product, ProductGroup) or not 0 <= index < len(product.factors):
            raise ValueError(f"expected a direct product with a factor {index}, got {product}")
        if representation.group != product.factors[index]:
            raise ValueError(
                f"expected a representation of factor {index}, {product.factors[index]}, got {representation}"
            )
        self.representation, self.group, self.index = representation, product, index
        self.size, self.band, self.name = representation.size, representation.band, representation.name

    def matrices(self, elements: Tensor) -> Tensor:
        return self.representation.matrices(self.group.project(elements, self.index))

    def act(self, elements: Tensor, x: Tensor) -> Tensor:
        return self.representation.act(self.group.project(elements, self.index), x)

    def entries(self) -> frozenset[float]:
        return self.representation.entries()

    def absolute(self) -> Representation:
        return self.lifted(self.representation.absolute())

    def invariant_sets(self) -> list[list[int]]:
        return self.representation.invariant_sets()

    def isotypes(self) -> Decomposition:
        # irreps of different factors differ, but for the trivial one
        outer = f"factor {self.index}"
        return Decomposition(
            [
                replace(
                    isotype,
                    representation=self._irrep(isotype.representation),
                    outer="invariant" if isotype.is_trivial else outer,
                    inner=None if isotype.is_trivial else isotype,
                    images=None,  # those are of the factor
                )
                for isotype in decompose(self.representation)
            ]
        )

    def _irrep(self, known: tuple[Representation, Tensor]) -> tuple[Representation, Tensor]:
        representation, rows = known
        return self.lifted(representation), rows.clone()

    def lifted(self, representation: Representation) -> LiftedRepresentation:
        """Another representation of the same factor, lifted to the same product."""
        return LiftedRepresentation(representation, self.group, self.index)

    def _key(self) -> Any:
        return (type(self).__name__, self.representation, self.group, self.index)
