"""Configurations of particles in files."""

import numpy as np
import pytest
import torch

from pyro_gflows.datasets import EventFormat, FileOptions, event_format, load_data
from pyro_gflows.serialization.registry import build, describe
from pyro_gflows.spaces import Euclidean, MeanFree

X = np.random.default_rng(0).normal(size=(50, 4, 2)).astype(np.float32) + 1


def form(group="S4 x O(2)", **options):
    return event_format(X, FileOptions(group, **options), source="x")


@pytest.mark.parametrize(
    ("group", "kind", "found"),
    [
        ("S4 x O(2)", None, "particles"),
        ("s1 x S3 x C6", None, "particles"),
        ("S4", None, "sets"),
        ("O(2)", None, "vectors"),
        ("O(2)", "particles", "particles"),
        ("C1", "particles", "particles"),
    ],
)
def test_the_group_or_an_option_says_that_rows_are_particles(group, kind, found):
    assert form(group, kind=kind).kind == found


def test_configurations_are_shifted_to_the_center_of_mass_or_taken_as_they_are():
    shifted, free = form(), form(center="free")
    assert shifted.space == MeanFree(4, 2) and free.space == Euclidean((4, 2))
    x, y = shifted.to_events(X, source="x"), free.to_events(X, source="x")
    assert torch.equal(y, torch.from_numpy(X))
    torch.testing.assert_close(x, y - y.mean(1, keepdim=True))
    assert "shifted to the center of mass 0" in shifted.describe() and "shifted" not in free.describe()
    np.testing.assert_array_equal(free.to_array(y), X)


@pytest.mark.parametrize("center", ["mean-free", "free"])
def test_the_format_is_kept_in_the_folder_of_a_run(center):
    here = form(center=center)
    assert build(describe(here)) == here
    old = describe(EventFormat("sets", (4, 2)))
    old["arguments"].pop("center", None)  # as earlier versions wrote it
    assert build(old) == EventFormat("sets", (4, 2))


def test_a_file_of_particles_is_split_and_shifted(tmp_path):
    np.save(tmp_path / "x.npy", X)
    data = load_data(str(tmp_path / "x.npy"), file=FileOptions("S4 x O(2)"))
    assert data.space == MeanFree(4, 2) and data.train.shape == (40, 4, 2)
    for part in (data.train, data.validation, data.test):
        assert part.mean(1).abs().max() < 1e-6


def test_options_that_contradict_the_file_are_refused():
    with pytest.raises(ValueError, match="expected particles where a center is named, got sets"):
        form("S4", center="free")
    with pytest.raises(ValueError, match="expected center='mean-free' or center='free', got 'fixed'"):
        form(center="fixed")
    with pytest.raises(ValueError, match="n >= 2, got n = 1"):
        event_format(X[:, :1], FileOptions("C1", "particles"), source="x")
    with pytest.raises(ValueError, match=r"particles as an array \(N, n, d\)"):
        event_format(X[:, 0], FileOptions("C1", "particles"), source="x")
