"""Representations of escnn as representations of this package, evaluated without escnn."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import Group
from pyro_gflows.groups.canonical_basis import Nearly
from pyro_gflows.groups.escnn_adapter import evaluate_continuous, representation_data
from pyro_gflows.groups.finite import FiniteGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.groups.representations import MatrixRepresentation, Representation
from pyro_gflows.serialization.registry import registered

__all__ = ["EscnnRepresentation", "as_representation"]


@registered
class EscnnRepresentation(Representation):
    """A representation of SO(2), O(2), SO(3) or O(3) in escnn's form: irreps and a change of basis.

    Args:
        group: The group, or its name.
        irreps: escnn's names of the irreps, in order.
        change_of_basis: An orthogonal matrix, shape ``(d, d)``.

    Example:
        >>> EscnnRepresentation("SO(2)", [(1,)], torch.eye(2)).name
        'irrep(1,)'
    """

    name = "escnn"

    def __init__(self, group: Group | str, irreps: Sequence[Sequence[int]], change_of_basis: Tensor) -> None:
        self.group = parse_group(group)
        self.irreps = [tuple(int(i) for i in irrep) for irrep in irreps]
        self.change_of_basis = torch.as_tensor(change_of_basis, dtype=torch.float64)
        self.size = self.change_of_basis.shape[0]
        self.band = max(irrep[-1] for irrep in self.irreps)
        self.name = "+".join("irrep" + str(irrep).replace(" ", "") for irrep in self.irreps)

    def matrices(self, elements: Tensor) -> Tensor:
        return evaluate_continuous(self.group.name, self.irreps, self.change_of_basis, elements)

    def _key(self) -> Any:
        return (*super()._key(), Nearly(self.change_of_basis))


def as_representation(representation: Any) -> Representation:
    """A representation of this package, from one of this package or of escnn.

    Args:
        representation: The representation; one of this package is returned as it is.

    Raises:
        TypeError: The argument is not a representation.

    Example:
        >>> from pyro_gflows.groups import escnn_group
        >>> as_representation(escnn_group().so2_group().irrep(1))
        irrep(1,) of SO(2)
    """
    if isinstance(representation, Representation):
        return representation
    if type(representation).__module__.split(".")[0] != "escnn":
        raise TypeError(
            f"expected a representation (of pyro_gflows or escnn), got {type(representation).__name__}; "
            "for your own matrices use VectorAction.from_generators([...])"
        )
    data = representation_data(representation)
    if data.matrices is None:
        return EscnnRepresentation(data.group, data.irreps, data.change_of_basis)
    return MatrixRepresentation(FiniteGroup(data.group, data.table, data.generators), data.matrices, name=data.name)
