"""Random orders of rows: bijections, close to uniform, any part of which can be asked for."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from pyro_gflows.datasets.file_rows import FileRows
from pyro_gflows.datasets.orders import DrawnOrder, KeyedOrder, WindowedOrder, is_drawn, new_order
from pyro_gflows.datasets.rows import as_rows

LENGTHS = [5, 1, 0, 17, 8, 8, 3]


def chi_square(counts):
    """A standard normal, nearly, if all counts have the same mean."""
    freedom = len(counts) - 1
    return (float(((counts - counts.mean()) ** 2 / counts.mean()).sum()) - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("count", [1, 2, 3, 17, 64, 1000, 4097])
def test_a_keyed_order_is_a_bijection(count):
    orders = [KeyedOrder(count, key).rows(0, count) for key in (0, 1, 2**62 - 1)]
    assert all(torch.equal(order.sort().values, torch.arange(count)) for order in orders)
    assert count < 17 or not torch.equal(orders[0], orders[1])


@pytest.mark.parametrize(
    "order", [KeyedOrder(1000, 3), WindowedOrder(LENGTHS, window=3, key=3)], ids=["keyed", "window"]
)
def test_parts_of_an_order_are_those_of_the_whole(order):
    whole = order.rows(0, len(order))
    assert torch.equal(whole.sort().values, torch.arange(len(order)))
    for start, stop in ((0, 1), (3, 30), (30, len(order) + 5), (len(order), len(order) + 5)):
        assert torch.equal(order.rows(start, stop), whole[start:stop])


def test_every_row_is_equally_likely_in_the_first_and_in_the_last_place():
    count, keys = 11, 4000
    orders = torch.stack([KeyedOrder(count, key).rows(0, count) for key in range(keys)])
    for place in (0, 1, count - 1):
        assert abs(chi_square(orders[:, place].bincount(minlength=count).double())) < 4
    pairs = (orders[:, 0] * count + orders[:, 1]).bincount(minlength=count**2).double()
    possible = pairs.reshape(count, count)[~torch.eye(count, dtype=torch.bool)]
    assert abs(chi_square(possible)) < 4


def test_the_places_of_rows_are_spread_evenly_in_a_large_order():
    order = KeyedOrder(10**9 + 7, 5)
    first = order.rows(0, 100_000)
    assert len(first.unique()) == len(first) and int(first.max()) < len(order)
    assert abs(chi_square((first // (len(order) // 50 + 1)).bincount(minlength=50).double())) < 4
    follows = (first[1:] - first[:-1]).double()
    assert abs(float(torch.corrcoef(torch.stack([first[1:], first[:-1]]).double())[0, 1])) < 0.02
    assert abs(float(follows.mean())) < 0.01 * len(order)


def test_a_keyed_order_needs_memory_for_what_is_asked_for_alone():
    tracemalloc.start()
    KeyedOrder(10**12, 5).rows(10**11, 10**11 + 1000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_a_window_has_all_rows_of_its_parts_and_parts_are_read_once():
    order = WindowedOrder(LENGTHS, window=2, key=11)
    part_of = np.repeat(np.arange(len(LENGTHS)), LENGTHS)
    parts = part_of[order.rows(0, len(order)).numpy()]
    runs = []  # the parts of each window, which begins with a part that was not there before
    start = 0
    for size in np.diff(np.concatenate([[0], order._ends])):
        runs.append(set(parts[start : start + size]))
        start += size
    assert sum(len(run) for run in runs) == sum(length > 0 for length in LENGTHS)
    assert set.union(*runs) == {0, 1, 3, 4, 5, 6}
    firsts = [int(part_of[WindowedOrder(LENGTHS, window=2, key=key).rows(0, 1)[0]]) for key in range(40)]
    assert len(set(firsts)) >= 4


class Mapped:
    """A large file, of which nothing is read."""

    path, kind, event_shape, dtype = "large", "file", (2,), np.dtype("f4")

    def __init__(self, rows, *, parts, is_mapped):
        self.lengths, self.is_mapped = (rows // parts,) * parts, is_mapped


def test_which_order_rows_have(tmp_path):
    generator = torch.Generator().manual_seed(0)
    few, many = torch.zeros(10, 1), torch.zeros(1).expand(5_000_000, 1)
    assert isinstance(new_order(as_rows(few), generator), DrawnOrder)
    assert is_drawn(as_rows(many)) and is_drawn(as_rows(many.numpy()))  # what is in memory may have an order in memory
    for is_mapped, kind in ((True, KeyedOrder), (False, WindowedOrder)):
        rows = FileRows(Mapped(5_000_000, parts=8, is_mapped=is_mapped))
        assert type(new_order(rows, generator)) is kind
    array = np.lib.format.open_memmap(tmp_path / "x.npy", "w+", np.float32, (5_000_000, 1))
    assert isinstance(new_order(as_rows(array), generator), KeyedOrder)
    assert isinstance(new_order(as_rows(array[:1000]), generator), DrawnOrder)
