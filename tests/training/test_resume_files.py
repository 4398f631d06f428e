"""Runs on files that are stopped in the middle of an epoch and resumed, also those of older versions."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from pyro_gflows.training import FitSettings, fit
from pyro_gflows.training.identity import alike
from tests.small_flows import points, small_flow

SETTINGS = FitSettings(steps=30, batch_size=32, seed=3, checkpoint_every=5)


def memory_map(folder):
    np.save(folder / "events.npy", points().numpy())
    return np.load(folder / "events.npy", mmap_mode="r")


def shards(folder):
    (folder / "shards").mkdir()
    for number, part in enumerate(points().split([200, 399, 1])):
        np.save(folder / "shards" / f"{number}.npy", part.numpy())
    return folder / "shards"


def table(folder):
    arrow = pytest.importorskip("pyarrow", reason="the extra files")
    columns = {name: points()[:, number].numpy() for number, name in enumerate("xy")}
    pytest.importorskip("pyarrow.parquet").write_table(
        arrow.table(columns), folder / "events.parquet", row_group_size=50
    )
    return folder / "events.parquet"


def weights(data, folder, *, stop=None, **options):
    """The weights after a run; with ``stop`` it dies in that step."""

    def noise(x, generator):
        return x + 0.01 * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    def die(step, losses, flow):
        if step == stop:
            raise SystemExit

    flow = small_flow()
    try:
        fit(flow, data, augment=noise, callbacks=die, folder=folder, progress=False, **options)
    except SystemExit:
        assert stop is not None
    return flow.state_dict()


def as_older_versions_did(monkeypatch):
    """Every order was drawn as a whole, and all data were read for their fingerprint."""
    monkeypatch.setattr("pyro_gflows.datasets.orders._DRAWN_ROWS", 10**9)
    monkeypatch.setattr("pyro_gflows.datasets.samples._LARGEST", 10**9)


def as_with_large_files(monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.orders._DRAWN_ROWS", 10)
    monkeypatch.setattr("pyro_gflows.datasets.samples._LARGEST", 10)
    monkeypatch.setattr("pyro_gflows.datasets.samples._ROWS", 64)


def assert_same(first, second):
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("form", [memory_map, shards, table])
def test_a_run_that_died_in_the_middle_of_an_epoch_ends_as_an_unbroken_one(form, tmp_path, monkeypatch):
    as_with_large_files(monkeypatch)
    data = form(tmp_path)
    unbroken = weights(data, tmp_path / "whole", settings=SETTINGS)
    weights(data, tmp_path / "died", settings=SETTINGS, stop=23)
    assert_same(weights(data, tmp_path / "died", settings=SETTINGS, resume=True), unbroken)


def test_a_run_of_an_older_version_goes_on_in_its_order(tmp_path, monkeypatch):
    data = memory_map(tmp_path)
    with monkeypatch.context() as older:
        as_older_versions_did(older)
        unbroken = weights(data, tmp_path / "whole", settings=SETTINGS)
        weights(data, tmp_path / "died", settings=SETTINGS, stop=23)
    as_with_large_files(monkeypatch)
    assert_same(weights(data, tmp_path / "died", settings=SETTINGS, resume=True), unbroken)


def test_other_large_data_are_refused(tmp_path, monkeypatch):
    as_with_large_files(monkeypatch)
    data = memory_map(tmp_path)
    weights(data, tmp_path / "run", settings=replace(SETTINGS, steps=3))
    np.save(tmp_path / "other.npy", 1.5 * points().numpy())
    with pytest.raises(ValueError, match="it is from a run with other data: stored .*of 64 rows"):
        weights(tmp_path / "other.npy", tmp_path / "run", settings=replace(SETTINGS, steps=9), resume=True)


def test_a_sample_is_compared_with_the_whole_by_size_and_dtype():
    whole, digest = "(600, 2) torch.float64 0123456789abcdef", "fedcba9876543210"
    assert alike(whole, f"(600, 2) torch.float64 {digest} of 64 rows")
    assert not alike(whole, f"(601, 2) torch.float64 {digest} of 64 rows")
    assert not alike(whole, f"(600, 2) torch.float32 {digest} of 64 rows")
    assert not alike(whole, f"(600, 2) torch.float64 {digest}")
    assert not alike(f"(600, 2) torch.float64 {digest} of 64 rows", whole)
