"""feature_split: rows that are permuted, split by their features."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from pyro_gflows.actions.rows import RowsAction
from pyro_gflows.actions.splits.base import balanced_halves
from pyro_gflows.actions.splits.by_index import CoordinateSplit
from pyro_gflows.groups.row_fields import RowField

__all__ = ["feature_sets", "feature_split"]


def feature_sets(action: RowsAction) -> list[list[int]]:
    """The coordinates of each feature in all rows, and those of each other field.

    Args:
        action: How the group acts on rows.

    Example:
        >>> feature_sets(RowsAction((2, 1), 2))  # of both blocks
        [[0, 2, 4], [1, 3, 5]]
    """
    found: list[list[int]] = []
    starts = itertools.accumulate(action.field_sizes, initial=0)
    for field, start in zip(action.fields, starts, strict=False):
        sets = field.invariant_sets()
        if isinstance(field, RowField):  # the sets of one block after those of another
            count = len(field.features)
            sets = [[index for one in sets[feature::count] for index in one] for feature in range(count)]
        else:
            sets = [list(range(field.size))]
        found += [[start + index for index in one] for one in sets]
    return found


def feature_split(action: RowsAction, parts: Sequence[Sequence[int]] | None = None) -> CoordinateSplit:
    """The split of rows into lists of features, so that the rows of every part are permuted together.

    Features are counted through the fields of the event: those of the rows one by one, and each field that no
    permutation changes as one.

    Args:
        action: How the group acts on rows.
        parts: Lists of features, which hold every feature once. By default there are two parts of about equal size.

    Raises:
        TypeError: The action is not a RowsAction.
        ValueError: There is a single feature, a part is empty, or the lists do not hold every feature once.

    Example:
        >>> feature_split(RowsAction(50, 3), [[0], [1, 2]])
        CoordinateSplit(RowsAction(S50 on R^50: rows) | RowsAction(S50 on R^100: rows of 2))
    """
    if not isinstance(action, RowsAction):
        raise TypeError(f"expected a RowsAction to split by features, got {action}")
    sets = feature_sets(action)
    if len(sets) == 1:
        raise ValueError(
            f"the rows of {action} have a single feature, so that no split by features is possible; use GResidual or "
            "GRadial, which split nothing"
        )
    chosen = balanced_halves([len(one) for one in sets]) if parts is None else [list(part) for part in parts]
    if sorted(feature for part in chosen for feature in part) != list(range(len(sets))) or not all(chosen):
        raise ValueError(f"expected non-empty lists that hold every feature 0..{len(sets) - 1} once, got {chosen}")
    return CoordinateSplit(action, [[index for feature in part for index in sets[feature]] for part in chosen])
