"""Questions about all entries of a batch, inside vmap and outside."""

import pytest
import torch
from torch.func import vmap

from pyro_gflows.numerics.transforms_active import anywhere, largest


@pytest.mark.parametrize(("values", "answer"), [([[0.0, 1.0], [0.0, 0.0]], 1.0), ([[0.0, 0.0], [0.5, 0.0]], 0.0)])
def test_one_answer_for_the_whole_batch(values, answer):
    x = torch.tensor(values)
    assert anywhere(x == 1) == (answer == 1)
    assert torch.equal(vmap(lambda row: row.sum() * 0 + anywhere(row == 1))(x), torch.full((2,), answer))
    assert torch.equal(vmap(lambda row: row.sum() * 0 + largest(row))(x), x.max().expand(2))


def test_no_entry_meets_a_condition_where_there_is_none():
    assert not anywhere(torch.zeros(0, dtype=torch.bool))
    assert torch.equal(vmap(lambda row: row.sum() + anywhere(row == 0))(torch.zeros(3, 0)), torch.zeros(3))
