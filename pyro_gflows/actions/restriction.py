"""A subgroup of a group of the plane, and how the regular representation of the whole moves under it."""

from __future__ import annotations

from torch import Tensor

from pyro_gflows.actions.groups import EnumerableGroup, Group, _Planar
from pyro_gflows.actions.representations import MatrixRepresentation, permutation_matrices

__all__ = ["places_in", "restricted_regular"]

_ROUNDING = 1e-9


def places_in(subgroup: Group, group: Group) -> Tensor:
    """Which element of C_n or D_n each element of a subgroup is, as maps of the plane.

    Raises:
        ValueError: groups that do not turn the plane, or the one does not hold the other.

    Example:
        >>> from pyro_gflows.actions import parse_group
        >>> places_in(parse_group("C4"), parse_group("C8")).tolist()
        [0, 2, 4, 6]
    """
    if isinstance(subgroup, _Planar) and isinstance(group, _Planar):
        distances = (subgroup.plane()[:, None] - group.plane()).abs().amax((-2, -1))
        nearest = distances.min(-1)
        if bool((nearest.values < _ROUNDING).all()):
            return nearest.indices
    raise ValueError(f"expected a subgroup of {group} in the plane, got {subgroup}")


def restricted_regular(subgroup: EnumerableGroup, group: EnumerableGroup) -> MatrixRepresentation:
    """The regular representation of C_n or D_n under a subgroup, which permutes its |G| entries as well.

    Raises:
        ValueError: as :func:`places_in`.

    Example:
        >>> from pyro_gflows.actions import parse_group
        >>> restricted_regular(parse_group("C4"), parse_group("C8"))
        regular of C8 of C4
    """
    targets = group.regular()[places_in(subgroup, group)]
    return MatrixRepresentation(subgroup, permutation_matrices(targets), name=f"regular of {group}")
