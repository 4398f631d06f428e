"""Masks of rows: which coordinates are there, sets as padded events, and events without gaps."""

import pytest
import torch

from pyro_gflows import RowsAction, VectorAction
from pyro_gflows.actions import pad_rows
from pyro_gflows.actions.row_mask import coordinates_there, without_gaps

PLANE = VectorAction.plane("O(2)")
ACTIONS = [
    RowsAction(4, 3),
    RowsAction(4).direct_sum(RowsAction(4, 2)),
    RowsAction(4, 3, signed=[1]),
    RowsAction(4, PLANE).direct_sum(RowsAction(4, PLANE.trivial_fields(1))),
]


def sets(*sizes):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(size, 3, generator=generator) for size in sizes]


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_sets_are_events_whose_other_rows_are_zero(action):
    data = sets(3, 0, 4)
    x, mask = pad_rows(action, data)
    assert mask.tolist() == [[True] * 3 + [False], [False] * 4, [True] * 4]
    there = coordinates_there(action, mask)
    assert not x[~there].any() and (x[there] != 0).all()
    start = 0
    for field, part in zip(action.fields, x.split(action.field_sizes, -1), strict=True):  # one table after the other
        table = part.unflatten(-1, (4, field.width))
        for one, found in zip(data, table, strict=True):
            assert torch.equal(found[: len(one)], one[:, start : start + field.width])
        start += field.width


@pytest.mark.parametrize("action", ACTIONS, ids=str)
def test_coordinates_of_missing_rows_are_those_that_change_with_them(action):
    mask = torch.tensor([True, False, True, False])
    there = coordinates_there(action, mask)
    (x,), _ = pad_rows(action, sets(4))
    (y,), _ = pad_rows(action, [sets(4)[0].index_fill(0, torch.tensor([1, 3]), 9.0)])
    assert torch.equal(x != y, ~there)


def test_events_without_gaps_hold_the_rows_that_are_there_in_turn():
    action = RowsAction(3, 2).direct_sum(RowsAction(3).trivial_fields(1))
    x = torch.arange(14.0).reshape(2, 7)
    mask = torch.tensor([[True, False, True], [False, True, False]])
    filled = without_gaps(action, x, mask)
    tables, rest = filled[:, :6].unflatten(-1, (3, 2)), filled[:, 6]
    assert tables.flatten(0, 1).tolist() == [[0.0, 1.0], [4.0, 5.0], [9.0, 10.0]] * 2
    assert torch.equal(rest, x[:, 6])
    assert torch.equal(without_gaps(action, x, torch.zeros_like(mask)), x)


@pytest.mark.parametrize(
    ("action", "tables", "error", "message"),
    [
        (RowsAction(4, 3), [], ValueError, "at least one set"),
        (RowsAction(4, 3), [torch.zeros(5, 3)], ValueError, "at most 4 rows"),
        (RowsAction(4, 3), [torch.zeros(2, 3), torch.zeros(2, 4)], ValueError, "index 1"),
        (RowsAction(4, 3), [[1.0, 2.0, 3.0]], TypeError, "list at index 0"),
        (RowsAction((4, 2), 3), sets(2), ValueError, "one block"),
        (RowsAction(4, 3).direct_sum(RowsAction(4).trivial_fields(1)), sets(2), ValueError, "rows alone"),
        (PLANE, sets(2), TypeError, "RowsAction"),
    ],
)
def test_other_tables_are_refused(action, tables, error, message):
    with pytest.raises(error, match=message):
        pad_rows(action, tables)
