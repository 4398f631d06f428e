"""Actions on rows that several tests use, and the tables of the small ones."""

from __future__ import annotations

from pyro_gflows.actions import RowsAction, VectorAction
from pyro_gflows.groups import MatrixRepresentation
from pyro_gflows.groups.base import require_enumerable

__all__ = ["LARGE", "SMALL", "enumerated", "hidden_units", "mixture"]


def mixture(count: int) -> RowsAction:
    """The weights in log-ratios, the means in the plane and the scales of components, and a scalar of all of them."""
    return RowsAction(count, mean_free=True).direct_sum(
        RowsAction(count, 2), RowsAction(count), RowsAction(count).trivial_fields(1)
    )


def hidden_units(count: int) -> RowsAction:
    """In-weights (odd), out-weights (odd) and prior scales (even) of hidden units."""
    return RowsAction(count, 2, signed=True).direct_sum(RowsAction(count, signed=True), RowsAction(count, signed=[]))


SMALL: dict[str, RowsAction] = {
    "S3": RowsAction(3, 2),
    "S5": RowsAction(5, 2),
    "mixture of 3": mixture(3),
    "signed S4, odd and even": RowsAction(4, 3, signed=[0, 2]),
    "2 hidden units": hidden_units(2),
    "two blocks": RowsAction((3, 2), 2),
    "S3 x C4": RowsAction(3, VectorAction.plane("C4", copies=2)),
    "signed S2 x D4": RowsAction(2, VectorAction.plane("D4", copies=2), signed=[0]),
}
"""Actions whose groups have few elements, by name."""

LARGE: dict[str, RowsAction] = {
    "S8": RowsAction(8, 2),
    "S50": RowsAction(50),
    "mixture of 8": mixture(8),
    "5 hidden units": hidden_units(5),
    "two large blocks": RowsAction((9, 4), 2),
    "S5 x O(2)": RowsAction(5, VectorAction.plane("O(2)", copies=2)),
    "S13 x O(3)": RowsAction(13, VectorAction.space("O(3)").direct_sum(VectorAction.trivial("O(3)"))),
    "S7 x SO(2)": RowsAction(7, VectorAction.plane("SO(2)", copies=2)),
}
"""Actions whose groups nobody lists, by name."""


def enumerated(action: RowsAction) -> VectorAction:
    """The same action by a table of a matrix for each element, without any structure."""
    group = require_enumerable(action.group)
    return VectorAction([MatrixRepresentation(group, action.matrix(group.elements()), name="table")])
