"""The commands on data that are angles."""

import json

import numpy as np
import pytest

from pyro_gflows.cli import main
from pyro_gflows.targets import Density


@pytest.mark.long
@pytest.mark.parametrize(("name", "group"), [("torus-square", "D4"), ("torus-unimodal", "C1")])
def test_fit_sample_score_and_check(name, group, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Density, "test_points", 300)
    model, draws = tmp_path / "model", tmp_path / "draws.npy"
    assert main(["fit", name, "--out", str(model), "--steps", "3", "--quiet"]) == 0
    assert "seem to be angles" not in capsys.readouterr().err
    metrics = json.loads((model / "metrics.json").read_text())
    assert metrics["group"] == group and metrics["invariance_error"] < 1e-10 and "gap" in metrics
    assert (model / "density.png").exists() and (model / "samples.png").exists()
    assert main(["sample", str(model), "--number", "50", "--out", str(draws)]) == 0
    x = np.load(draws)
    assert x.shape == (50, 2) and x.min() >= 0 and x.max() < 2 * np.pi
    assert main(["score", str(model), name]) == 0 and main(["score", str(model), str(draws)]) == 0
    assert main(["check", str(model)]) == 0
    assert "FAILED" not in capsys.readouterr().out


def test_a_group_that_two_angles_cannot_carry_is_refused(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(Density, "test_points", 300)
    assert main(["fit", "torus-square", "--group", "D8", "--out", str(tmp_path), "--quiet"]) == 2
    assert "C1, C2, C4, D1, D2 and D4 act" in capsys.readouterr().err


def test_the_symmetry_of_angles_is_tested_as_points_of_circles(monkeypatch, capsys):
    monkeypatch.setattr(Density, "test_points", 2000)
    assert main(["check-data", "torus-square"]) == 0
    assert "do not contradict" in capsys.readouterr().out
    assert main(["check-data", "torus-unimodal", "--group", "C4"]) == 1


@pytest.mark.long
@pytest.mark.parametrize(("group", "flow"), [("C1", "coupling"), ("D4", "residual")])
def test_angles_of_the_users_own(group, flow, tmp_path, capsys):
    file, model, draws = tmp_path / "own.npy", tmp_path / "model", tmp_path / "draws.npy"
    np.save(file, np.random.default_rng(0).uniform(0, 2 * np.pi, size=(300, 2)))
    options = ["--group", group, "--events", "angles"]
    assert main(["fit", str(file), *options, "--out", str(model), "--steps", "2", "--quiet"]) == 0
    said = capsys.readouterr()
    assert "read as vectors of 2 angles in radians" in said.out and f"flow: {flow}" in said.out
    assert "seem to be angles" not in said.err
    assert main(["sample", str(model), "--number", "50", "--out", str(draws)]) == 0
    x = np.load(draws)
    assert x.shape == (50, 2) and x.min() >= 0 and x.max() < 2 * np.pi
    for data in (file, draws):
        assert main(["score", str(model), str(data)]) == 0
    assert main(["check", str(model)]) == 0
    assert main(["check-data", str(file), *options[:1], "D4", *options[2:]]) == 0


@pytest.mark.filterwarnings("default:the data seem to be angles")
def test_angles_that_are_read_as_vectors_are_noticed(tmp_path, capsys):
    file = tmp_path / "own.npy"
    np.save(file, np.random.default_rng(0).uniform(0, 2 * np.pi, size=(3000, 2)))
    assert main(["fit", str(file), "--group", "C1", "--out", str(tmp_path / "model"), "--steps", "1", "--quiet"]) == 0
    assert "take --events angles for a flow on a torus" in capsys.readouterr().err
