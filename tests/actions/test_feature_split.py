"""Rows that are permuted are split by their features, at a cost that is linear in their number."""

import pytest
import torch

from pyro_gflows import CoordinateSplit, RowsAction, VectorAction, feature_split
from pyro_gflows.actions import default_split
from pyro_gflows.actions.splits.by_feature import feature_sets
from tests.constructors.row_actions import LARGE, SMALL, hidden_units, mixture

EVERY = {name: action for name, action in (SMALL | LARGE).items() if len(feature_sets(action)) > 1}


@pytest.mark.parametrize("name", EVERY)
def test_the_parts_are_rows_on_which_the_group_acts(name):
    action = EVERY[name]
    split = default_split(action)
    x = torch.randn(3, action.numel, dtype=torch.float64)
    assert all(isinstance(part, RowsAction) for part in split.parts)
    assert torch.equal(split.merge(split.split(x)), x)
    g = action.sample((3,), torch.Generator().manual_seed(0))
    for part, own, image in zip(split.parts, split.split(x), split.split(action.act_each(g, x)), strict=True):
        torch.testing.assert_close(part.act_each(g, own), image, rtol=0.0, atol=1e-12)


def test_a_part_holds_features_of_all_blocks():
    split = feature_split(RowsAction((3, 2), 2))
    assert [part.numel for part in split.parts] == [5, 5]
    assert split.split(torch.arange(10.0))[0].tolist() == [0.0, 2.0, 4.0, 6.0, 8.0]


def test_features_are_counted_through_the_fields():
    action = mixture(4)  # weights in log-ratios, two coordinates of the means, scales, and a scalar
    split = feature_split(action, [[0, 4], [1, 2], [3]])
    assert [str(part).split(": ")[1] for part in split.parts] == ["mean-free rows + trivial)", "rows of 2)", "rows)"]
    units = feature_split(hidden_units(4), [[2], [0, 1, 3]])
    assert not any(field.odd[0] for field in units.parts[1].fields[-1:]) and units.parts[0].fields[0].odd == (True,)


def test_a_vector_of_a_row_is_one_feature():
    split = default_split(RowsAction(13, VectorAction.space("O(3)", copies=2)))
    assert [str(part) for part in split.parts] == ["RowsAction(S13 x O(3) on R^39: rows of 3)"] * 2


def test_blocks_of_a_single_feature_are_parts():
    split = default_split(RowsAction((3, 2)))
    assert isinstance(split, CoordinateSplit)
    assert [str(part).split(": ")[1] for part in split.parts] == ["rows in block 0)", "rows in block 1)"]


def test_a_single_feature_cannot_be_split():
    with pytest.raises(ValueError, match="have a single feature, so that no split by features is possible; use GRes"):
        default_split(RowsAction(1000))


@pytest.mark.parametrize("parts", [[[0], [1]], [[0, 1, 2], []], [[0, 1], [1, 2]]])
def test_every_feature_is_in_one_part(parts):
    with pytest.raises(ValueError, match="lists that hold every feature 0..2 once"):
        feature_split(RowsAction(5, 3), parts)


def test_other_actions_have_no_features():
    with pytest.raises(TypeError, match="expected a RowsAction to split by features"):
        feature_split(VectorAction.rows("S3", features=2))


def test_the_error_of_a_cut_orbit_is_short():
    with pytest.raises(ValueError, match="it cuts the orbit") as error:
        CoordinateSplit(RowsAction(1000, 2), [range(1000), range(1000, 2000)])
    assert len(str(error.value)) < 12_000
