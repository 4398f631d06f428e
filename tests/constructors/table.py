"""The table of named constructors: every generic test runs over all rows, so that a new transform is one new row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from tests.constructors import (
    augmented,
    circular,
    composed,
    conditional,
    coupling,
    fieldwise,
    gradient,
    graph,
    in_coordinates,
    many_signs,
    pair_potential,
    residual,
    rows,
    rows_of_sets,
    torus,
)
from tests.constructors.row import Row

__all__ = ["CONDITIONAL", "CONSTRUCTORS", "TABLE", "names", "slow_unless"]

_ROWS = (
    *residual.ROWS,
    *rows_of_sets.ROWS,
    *many_signs.ROWS,
    *fieldwise.ROWS,
    *coupling.ROWS,
    *composed.ROWS,
    *conditional.ROWS,
    *torus.ROWS,
    *gradient.ROWS,
    *circular.ROWS,
    *rows.ROWS,
    *in_coordinates.ROWS,
    *pair_potential.ROWS,
    *augmented.ROWS,
    *graph.ROWS,
)

TABLE: dict[str, Row] = {row.name: row for row in _ROWS}
"""All rows by name."""

CONSTRUCTORS: dict[str, Row] = {name: row for name, row in TABLE.items() if not row.takes_context}
"""The rows of transforms of events alone."""

CONDITIONAL: dict[str, Row] = {name: row for name, row in TABLE.items() if row.takes_context}
"""The rows of transforms that take a context."""

if len(TABLE) < len(_ROWS):
    again = sorted({row.name for row in _ROWS if TABLE[row.name] is not row})
    raise ValueError(f"expected a name of its own for each row, got several of {again}")


def names(table: Mapping[str, Row], **traits: Any) -> list[str]:
    """Return the names of the rows with some traits, such as ``estimated=False`` or ``family="residual"``."""
    return [name for name, row in table.items() if all(getattr(row, key) == value for key, value in traits.items())]


def slow_unless(quick: Iterable[str], chosen: Iterable[str]) -> list[Any]:
    """Return the chosen rows as parameters of a test that is marked slow for all rows except the quick ones.

    Raises:
        KeyError: If a quick row is not in the table.
    """
    fast = {TABLE[name].name for name in quick}
    return [pytest.param(name, marks=[] if name in fast else [pytest.mark.slow]) for name in chosen]
