"""HiddenFields: hidden layers whose size does not depend on the size of the event or of the group."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pyro_gflows.actions import LinearAction, VectorAction
from pyro_gflows.groups import Representation
from pyro_gflows.groups.restriction import restricted_to_subspace
from pyro_gflows.serialization.registry import registered

__all__ = ["HiddenFields", "maps_between"]


@registered
class HiddenFields:
    """Hidden fields of a fixed count: invariant features, and copies of each kind of vector that the input contains.

    A field is a block of components that the group transforms together; an invariant feature is a field of one
    component that the group leaves unchanged. A call maps the action on the input of a network to the action on its
    hidden layers.

    The kinds are the orbits of coordinates where the group permutes coordinates, and the nontrivial irreps elsewhere
    (an irrep is a smallest building block of an action). Use it as ``hidden_fields=`` of a network. By default, under a
    continuous or a large group, an :class:`EquivariantMLP` of ``width`` fields copies its whole input ``width`` times,
    so that its weights grow as the square of the size of the event.

    Args:
        invariants: The number of features that the group leaves unchanged.
        copies: The number of copies of each kind of vector.

    Raises:
        ValueError: If either number is below one.

    Example:
        >>> HiddenFields(8, 4)(VectorAction.plane("O(2)", copies=60))
        VectorAction(O(2) on R^16: 8 x trivial + 4 x defining)
        >>> HiddenFields(8, 4)(VectorAction.rows("S5", features=20))
        VectorAction(S5 on R^28: 8 x trivial + 4 x orbit of 5)
    """

    def __init__(self, invariants: int, copies: int) -> None:
        if invariants < 1 or copies < 1:
            raise ValueError(f"expected at least one invariant and one copy, got {invariants} and {copies}")
        self.invariants, self.copies = invariants, copies

    def __call__(self, action: LinearAction) -> VectorAction:
        """The action of the group on the hidden layers of a network.

        Args:
            action: How the group acts on the input of the network.

        Raises:
            TypeError: If the input is not a vector.
        """
        if not isinstance(action, VectorAction):
            raise TypeError(f"expected a network on vectors, got an input of {action}; on images give a width")
        trivial = action.trivial_fields(self.invariants)
        kinds = list(dict.fromkeys(_kinds(action)))
        return trivial.direct_sum(*[VectorAction(kind).copies(self.copies) for kind in kinds])

    def __repr__(self) -> str:
        return f"HiddenFields({self.invariants} invariants, {self.copies} copies)"


def _kinds(action: VectorAction) -> Iterator[Representation]:
    if action.is_permutation:
        for field in dict.fromkeys(action.fields):
            for orbit in field.invariant_sets():
                if len(orbit) > 1:
                    yield _part(field, torch.eye(field.size, dtype=torch.float64)[orbit], f"orbit of {len(orbit)}")
        return
    for isotype in action.decomposition:
        if not isotype.is_trivial:
            yield _part(*isotype.representation, f"irrep of {isotype.dim} dimensions")


def _part(field: Representation, rows: Tensor, name: str) -> Representation:
    return field if len(rows) == field.size else restricted_to_subspace(field, rows, name)


def maps_between(first: VectorAction, second: VectorAction) -> int:
    r"""The dimension of the space of equivariant linear maps (intertwiners) between two actions of one group.

    This is the number of weights of a linear layer between the two actions. The dimension is :math:`\int \chi_1(g)
    \chi_2(g)\,dg`, where :math:`\chi` is the trace of the matrix of g.

    Args:
        first: The action on the input.
        second: The action on the output.

    Example:
        >>> action = VectorAction.plane("D4")
        >>> maps_between(action, action.regular_fields(3))
        6
    """
    bands = [max(field.band for field in action.fields) for action in (first, second)]
    elements, weights = first.group.quadrature(sum(bands))
    return round(float((_character(first, elements) * _character(second, elements)) @ weights))


def _character(action: VectorAction, elements: Tensor) -> Tensor:
    traces = {field: field.matrices(elements).diagonal(dim1=-2, dim2=-1).sum(-1) for field in set(action.fields)}
    return torch.stack([traces[field] for field in action.fields]).sum(0)
