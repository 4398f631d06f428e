"""An experiment that was killed goes on, and a finished one is not run again."""

import dataclasses

import pytest
import torch

from pyro_gflows.datasets import DataSet
from pyro_gflows.experiments import runs as experiments
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.serialization import load
from pyro_gflows.training import Adam, FitSettings, Validation

SETTINGS = FitSettings(steps=4, batch_size=8, optimizer=Adam(lr=1e-2), validation=Validation(2), checkpoint_every=1)
PRESET = Preset("small", "cloud", "C4", "ridges", {"blocks": 1, "terms": 1, "knots": 4}, SETTINGS)


@pytest.fixture
def data():
    x = torch.randn(60, 2, generator=torch.Generator().manual_seed(0))
    return DataSet("cloud", x[:30], x[30:40], x[40:])


def finish(preset, data, folder):
    return experiments.finish(preset, data, folder, progress=False)


def test_a_finished_run_is_read(data, tmp_path, monkeypatch):
    first = finish(PRESET, data, tmp_path)
    monkeypatch.setattr(experiments, "fit", None)  # nothing can train any more
    assert finish(PRESET, data, tmp_path) == first
    assert [step for step, _ in first["validation_curve"]] == [2, 4]


def test_a_killed_run_ends_as_an_unbroken_one(data, tmp_path):
    whole = finish(PRESET, data, tmp_path / "whole")
    calls = []

    def killed(x, generator):
        calls.append(None)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return x

    with pytest.raises(KeyboardInterrupt):
        finish(PRESET, dataclasses.replace(data, augment=killed), tmp_path / "killed")
    resumed = finish(PRESET, data, tmp_path / "killed")
    assert {**resumed, "seconds": None} == {**whole, "seconds": None}
    weights = [load(tmp_path / name).state_dict() for name in ("whole", "killed")]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])


def test_the_folder_of_another_run_is_left_alone(data, tmp_path):
    finish(PRESET, data, tmp_path)
    for other in (PRESET.seeded(1), PRESET.change(group="C2")):
        with pytest.raises(ValueError, match="remove it or take another folder"):
            finish(other, data, tmp_path)
    with pytest.raises(ValueError, match="other data"):
        finish(PRESET, dataclasses.replace(data, name="rain"), tmp_path)
