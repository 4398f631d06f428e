"""StructuredField: the representations of which the events of row actions consist, which act without a matrix."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from pyro_gflows.groups.representations import Representation
from pyro_gflows.groups.row_structure import RowStructure
from pyro_gflows.serialization.registry import registered

if TYPE_CHECKING:
    from pyro_gflows.groups.components import Decomposition

__all__ = ["InnerField", "StructuredField"]


class StructuredField(Representation):
    """A representation of the group of a :class:`RowStructure` that acts without a matrix.

    Attributes:
        structure: The group that permutes the rows and acts on their features.

    Example:
        >>> from pyro_gflows.groups.matrix_field import MatrixField
        >>> isinstance(MatrixField(RowStructure((3,)), (0, 0)), StructuredField)
        True
    """

    structure: RowStructure

    def isotypes(self) -> Decomposition | None:
        from pyro_gflows.groups.row_decomposition import decompose_rows  # it is made of fields

        return decompose_rows(self.structure, [self])

    def matrices(self, elements: Tensor) -> Tensor:
        unit = torch.eye(self.size, dtype=torch.float64, device=elements.device)
        return self.act(elements[(..., None, *[slice(None)] * len(self.group.element_shape))], unit).mT


@registered
class InnerField(StructuredField):
    """A feature that no permutation changes, on which the group H of the features acts, such as the center of a set.

    Args:
        structure: The group.
        feature: How H acts on it.

    Raises:
        ValueError: The feature is not of H.

    Example:
        >>> from pyro_gflows.groups import DefiningRepresentation, parse_group
        >>> InnerField(RowStructure((3,), inner=parse_group("D4")), DefiningRepresentation("D4"))
        defining of S3 x D4
    """

    def __init__(self, structure: RowStructure, feature: Representation) -> None:
        if feature.group != structure.inner:
            raise ValueError(f"expected a feature of {structure.inner}, got {feature}")
        self.structure, self.feature, self.group = structure, feature, structure.group
        self.size, self.name, self.band = feature.size, feature.name, feature.band

    def act(self, elements: Tensor, x: Tensor) -> Tensor:
        matrices = self.feature.matrices(self.structure.inner_elements(elements).cpu()).to(x)
        return (matrices @ x[..., None]).squeeze(-1)

    def entries(self) -> frozenset[float]:
        return self.feature.entries()

    def absolute(self) -> InnerField:
        return InnerField(self.structure, self.feature.absolute())

    def invariant_sets(self) -> list[list[int]]:
        return self.feature.invariant_sets()

    def _key(self) -> Any:
        return (type(self).__name__, self.structure, self.feature)
