"""The commands on configurations of particles."""

import json

import numpy as np
import pytest

from pyro_gflows.cli import main
from pyro_gflows.experiments import pictures
from pyro_gflows.targets import DENSITIES, Pool, SequentialMonteCarlo

FIGURES = {
    "nll", "floor", "gap", "gap_standard_error", "ess", "forward_ess", "pareto_k", "log_z", "log_z_standard_error",
    "known_log_z", "invariance_error",
}  # fmt: skip
PICTURES = ("density.png", "distances.png", "energies.png", "configurations.png", "loss.png")


@pytest.fixture(autouse=True)
def few_draws(monkeypatch):
    monkeypatch.setattr(pictures, "_DRAWS", 40)


@pytest.fixture
def quick(monkeypatch):
    """Quick samplers, whose draws are enough to see that everything is carried out."""
    monkeypatch.delenv("PYRO_GFLOWS_DATA", raising=False)
    for name in ("dw4", "lj13"):
        target = DENSITIES[name]
        quick = SequentialMonteCarlo(steps=40, curve=4.0, final_sweeps=60, scale=target.sampler.scale)
        monkeypatch.setattr(target, "sampler", quick)
        monkeypatch.setattr(target, "pool", Pool(1000, progress=False))
        monkeypatch.setattr(target, "test_points", 60)
        monkeypatch.setattr(target, "_drawn", None)


def cloud(folder, *, n=3, d=2, count=60, shift=0.0):
    x = np.random.default_rng(0).normal(size=(count, n, d)) + shift
    np.save(folder / "own.npy", x.astype(np.float32))
    return str(folder / "own.npy")


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:the data are not symmetric")  # draws that are too quick to be independent
@pytest.mark.parametrize(
    ("name", "preset", "more"),
    [("dw4", "", []), ("dw4", "-energy", []), ("lj13", "", ["--flow", "radial"])],
)
def test_a_cluster_is_fitted_sampled_scored_and_checked(name, preset, more, quick, tmp_path, capsys):
    target, out, draws = DENSITIES[name], tmp_path / "out", tmp_path / "draws.npy"
    options = ["--preset", name + preset, "--steps", "2", "--batch-size", "8", "--quiet", *more]
    assert main(["fit", name, "--out", str(out), *options]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics.keys() >= FIGURES and metrics["by"] == ("energy" if preset else "likelihood")
    assert metrics["group"] == metrics["invariance_group"] == target.symmetry and metrics["invariance_error"] < 1e-8
    assert (metrics["floor"], metrics["known_log_z"]) == (target.floor, target.log_z)
    assert 0 < metrics["ess"] <= 1 and 0 < metrics["forward_ess"] <= 1
    for picture in PICTURES:
        assert (out / picture).read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "known_log_z: " in said and "gap: " in said
    assert main(["sample", str(out), "-n", "20", "--out", str(draws), "--quiet"]) == 0
    x = np.load(draws)
    assert x.shape == (20, target.n, target.d) and np.abs(x.mean(1)).max() < 1e-4
    capsys.readouterr()
    for data in (name, str(draws)):
        assert main(["score", str(out), data, "--quiet"]) == 0
        assert "nats" in capsys.readouterr().out
    assert main(["check", str(out)]) == 0
    assert "FAILED" not in capsys.readouterr().out


@pytest.mark.long
def test_a_stopped_training_by_energy_goes_on(quick, tmp_path):
    options = ["dw4", "--preset", "dw4-energy", "--batch-size", "8", "--quiet", "--out", str(tmp_path)]
    assert main(["fit", *options, "--steps", "2"]) == 0
    assert main(["fit", *options, "--more-steps", "1"]) == 0
    assert json.loads((tmp_path / "metrics.json").read_text())["steps"] == 3
    assert main(["fit", "dw4", "--quiet", "--out", str(tmp_path), "--resume"]) == 2


@pytest.mark.long
@pytest.mark.parametrize(
    ("n", "d", "options", "said"),
    [
        (3, 2, ["--group", "S3 x O(2)"], "3 particles in R^2, shifted to the center of mass 0"),
        (3, 2, ["--group", "s1 x s2 x so(2)"], "3 particles in R^2, shifted"),
        (2, 3, ["--group", "S2 x O(3)", "--center", "free"], "2 particles in R^3;"),
        (3, 2, ["--group", "O(2)", "--events", "particles"], "3 particles in R^2, shifted"),
        (3, 1, ["--group", "S3", "--events", "particles", "--flow", "radial"], "3 particles in R^1, shifted"),
        (4, 2, ["--group", "S4 x C6", "--flow", "radial"], "4 particles in R^2, shifted"),
    ],
)
def test_configurations_of_the_users_own(n, d, options, said, tmp_path, capsys):
    out, draws = tmp_path / "out", tmp_path / "draws.npy"
    file = cloud(tmp_path, n=n, d=d, shift=0.0 if "free" in options else 1.0)
    small = ["--steps", "2", "--batch-size", "8", "--quiet"]
    assert main(["fit", file, "--out", str(out), *options, *small]) == 0
    output = capsys.readouterr()
    assert said in output.out and output.err == ""
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["invariance_error"] < 1e-8 and "floor" not in metrics
    assert (out / "distances.png").exists() and not (out / "energies.png").exists()
    assert (out / "configurations.png").exists() == (d > 1)
    assert main(["sample", str(out), "-n", "20", "--out", str(draws)]) == 0
    x = np.load(draws)
    centers = np.abs(x.mean(1)).max()
    assert x.shape == (20, n, d) and x.dtype == np.float32 and (centers < 1e-4) == ("free" not in options)
    for data in (file, str(draws)):  # both shifted, or both as they are
        assert main(["score", str(out), data]) == 0
    assert main(["check", str(out)]) == 0
    assert "FAILED" not in capsys.readouterr().out


@pytest.mark.long
def test_the_symmetry_of_particles_is_tested(tmp_path, capsys):
    file = cloud(tmp_path, count=400)
    assert main(["check-data", file, "--group", "S3 x O(2)"]) == 0
    assert "particles" in capsys.readouterr().out
    x = np.load(file)
    x[:, 0, 0] += 3.0
    np.save(file, x)
    assert main(["check-data", file, "--group", "S3 x O(2)"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--group", "S4 x O(2)"], "S3 x O(2) or S1 x S2 x O(2), got S4 x O(2)"),
        (["--group", "S3 x O(3)"], "S3 x O(3) does not act on particles of 2 coordinates"),
        (["--group", "O(2)", "--center", "free"], "expected particles where a center is named, got vectors"),
        (["--group", "S3 x O(2)", "--flow", "coupling"], "choose --flow pair-potential or radial or residual"),
        (["--group", "S3 x O(2)", "--flow", "image-coupling"], "it is for images"),
        (["--group", "S3 x O(2)", "--levels", "4"], "expected images where gray levels are given"),
        (["--group", "O(2)", "--flow", "pair-potential"], "it is for particles"),
        (
            ["--group", "O(2)", "--events", "particles", "--flow", "placement"],
            "it takes distances from data",
        ),
        (["--group", "S3 x O(2)", "--preset", "dw4-energy"], "with a known energy"),
    ],
)
def test_what_particles_cannot_carry_is_said_in_the_words_of_the_command_line(options, message, tmp_path, capsys):
    arguments = ["fit", cloud(tmp_path), "--out", str(tmp_path / "out"), "--steps", "1", "--quiet"]
    assert main([*arguments, *options]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_options_for_files_are_refused_with_named_data(tmp_path, capsys):
    assert main(["fit", "dw4", "--center", "free", "--out", str(tmp_path), "--quiet"]) == 2
    assert "--center is for your own files" in capsys.readouterr().err
