import dataclasses
import json
import os
import signal
import sys

import numpy as np
import pytest
import torch

from pyro_gflows import GSigmoid
from pyro_gflows.cli import main
from pyro_gflows.datasets import load_data
from pyro_gflows.experiments import runs as experiments
from pyro_gflows.experiments.presets import preset_for
from pyro_gflows.serialization import load
from pyro_gflows.targets import Density
from pyro_gflows.training import FitSettings
from tests.small_flows import points

KEYS = {
    "data", "group", "flow", "seed", "steps", "parameters", "seconds", "nll", "invariance_error",
}  # fmt: skip


@pytest.fixture
def cloud(tmp_path):
    np.save(tmp_path / "cloud.npy", points(200).numpy())
    return str(tmp_path / "cloud.npy")


def fit_cloud(cloud, out, *more):
    return main(
        ["fit", cloud, "--group", "D4", "--out", str(out), "--steps", "3", "--flow", "radial", "--quiet", *more]
    )


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1, error
    assert "Traceback" not in error
    return error


@pytest.mark.long
def test_fit_writes_everything_and_sample_score_and_check_read_it(cloud, tmp_path, capsys):
    out = tmp_path / "out"
    assert fit_cloud(cloud, out) == 0
    names = {path.name for path in out.iterdir()}
    assert {"model.json", "model.safetensors", "metrics.json", "checkpoint.safetensors"} <= names
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics.keys() >= KEYS
    assert metrics["group"] == "D4" and metrics["steps"] == 3
    assert metrics["invariance_error"] < 1e-10
    assert main(["sample", str(out), "-n", "7", "--out", str(tmp_path / "s.npy")]) == 0
    assert np.load(tmp_path / "s.npy").shape == (7, 2)
    assert main(["sample", str(out), "-n", "7", "--out", str(tmp_path / "s.csv")]) == 0
    np.testing.assert_array_equal(np.loadtxt(tmp_path / "s.csv", delimiter=","), np.load(tmp_path / "s.npy"))
    capsys.readouterr()
    assert main(["score", str(out), cloud, "--out", str(tmp_path / "scores.npy")]) == 0
    scores = np.load(tmp_path / "scores.npy")
    assert scores.shape == (200,)
    assert f"nll: {-scores.mean():.6g} nats" in capsys.readouterr().out
    assert main(["check", str(out)]) == 0
    assert "FAILED" not in capsys.readouterr().out


@pytest.mark.long
def test_pictures_are_drawn(cloud, tmp_path):
    pytest.importorskip("matplotlib")
    fit_cloud(cloud, tmp_path / "out")
    for name in ("density.png", "samples.png", "loss.png"):
        assert (tmp_path / "out" / name).read_bytes().startswith(b"\x89PNG")


def test_without_matplotlib_the_model_is_kept(cloud, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert fit_cloud(cloud, tmp_path / "out") == 0
    assert "no pictures: pictures need matplotlib" in capsys.readouterr().err
    assert (tmp_path / "out" / "model.json").exists()


@pytest.mark.long
def test_a_density_has_a_floor_and_a_gap(tmp_path, monkeypatch):
    monkeypatch.setattr(Density, "test_points", 500)
    assert main(["fit", "rings", "--out", str(tmp_path), "--steps", "2", "--flow", "radial", "--quiet"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["group"] == "O(2)" and metrics["flow"] == "radial"
    assert metrics["gap"] == pytest.approx(metrics["nll"] - metrics["floor"], abs=0.3)


@pytest.mark.long
def test_a_flow_without_symmetry_is_measured_against_the_datas(tmp_path, monkeypatch):
    monkeypatch.setattr(Density, "test_points", 200)
    assert main(["fit", "8gaussians", "--group", "C1", "--out", str(tmp_path), "--steps", "2", "--quiet"]) == 0
    metrics = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["invariance_group"] == "D8" and metrics["invariance_error"] > 1e-6


@pytest.mark.long
def test_images_are_reported_in_full_and_with_noise_that_is_trained(tmp_path):
    pytest.importorskip("sklearn")
    data = load_data("digits")
    few = dataclasses.replace(data, validation=data.validation[:4], test=data.test[:4])
    preset = preset_for("digits", flow="coupling").change(
        flow="image-coupling",
        size={"blocks": 1, "width": 2},
        logit=0.05,
        variational=True,
        settings=FitSettings(steps=1, batch_size=8),
    )
    metrics = experiments.run(preset, few, tmp_path, progress=False).metrics
    assert metrics == json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["dequantization"] == "variational" and metrics["seconds_per_step"] > 0
    assert metrics["mean_invariance_error"] <= metrics["invariance_error"] < 1e-10
    assert metrics["importance_bits_per_dim"] < metrics["bits_per_dim"]
    assert (tmp_path / "noise" / "model.json").exists()
    assert isinstance(load(tmp_path).transforms[-1], GSigmoid)


def test_only_images_have_noise_to_train(cloud, tmp_path, capsys):
    assert fit_cloud(cloud, tmp_path / "out", "--variational") == 2
    assert "expected images of gray levels" in one_line(capsys)


@pytest.mark.long
def test_a_broken_model_fails_its_check(cloud, tmp_path, capsys, monkeypatch):
    from pyro_gflows.transforms import GActNorm

    fit_cloud(cloud, tmp_path / "out")
    call = GActNorm.call_and_ladj
    monkeypatch.setattr(
        GActNorm, "call_and_ladj", lambda self, x, context=None: (call(self, x)[0], 2 * call(self, x)[1] + 1)
    )
    assert main(["check", str(tmp_path / "out")]) == 1
    assert "FAILED" in capsys.readouterr().out


@pytest.mark.long
def test_resume_ends_in_the_weights_of_an_unbroken_run(cloud, tmp_path, monkeypatch, capsys):
    assert fit_cloud(cloud, tmp_path / "whole", "--seed", "1") == 0
    draws = experiments.fit

    def interrupted(flow, data, **arguments):
        def augment(x, generator):
            os.kill(os.getpid(), signal.SIGINT)
            return x

        return draws(flow, data, **{**arguments, "augment": augment})

    monkeypatch.setattr(experiments, "fit", interrupted)
    assert fit_cloud(cloud, tmp_path / "stopped", "--seed", "1") == 130
    assert "--resume" in one_line(capsys)
    monkeypatch.undo()
    assert fit_cloud(cloud, tmp_path / "stopped", "--seed", "1", "--resume") == 0
    weights = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("whole", "stopped")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fit", "nosuch", "--out", "OUT", "--group", "C4"], "unknown data 'nosuch'"),
        (["fit", "nosuch", "--out", "OUT"], "unknown data 'nosuch'"),
        (["fit", "CLOUD", "--out", "OUT"], "need --group"),
        (["fit", "CLOUD", "--out", "OUT", "--group", "Q5"], "Q5"),
        (["fit", "CLOUD", "--out", "OUT", "--group", "SO(3)"], "vectors of 3 components"),
        (["fit", "CLOUD", "--out", "OUT", "--group", "C4", "--steps", "0"], "steps >= 1"),
        (["fit", "CLOUD", "--out", "OUT", "--group", "C4", "--lr", "-1"], "learning rate"),
        (["fit", "CLOUD", "--out", "OUT", "--group", "C4", "--resume"], "no checkpoint to resume from"),
        (["fit", "CLOUD", "--out", "CLOUD", "--group", "C4"], "cannot write to the output folder"),
        (["fit", "CLOUD"], "required: --out"),
        (["fit", "CLOUD", "--out", "OUT", "--flow", "spline"], "invalid choice"),
        (["sample", "OUT", "--out", "s.npy"], "no such file"),
        (["sample", "OUT", "--out", "s.png"], "end in .npy or .csv"),
        (["sample", "OUT", "-n", "0", "--out", "s.npy"], "positive number"),
        (["check", "OUT"], "no such file"),
        (["score", "OUT", "CLOUD"], "no such file"),
        (["demo", "--workers", "0"], "at least one worker"),
        (["paint"], "invalid choice"),
        ([], "required: COMMAND"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(arguments, message, cloud, tmp_path, capsys):
    words = {"CLOUD": cloud, "OUT": str(tmp_path / "out")}
    try:
        code = main([words.get(word, word) for word in arguments])
    except SystemExit as stop:  # argparse's own errors
        code = stop.code
    assert code == 2
    assert message in one_line(capsys)


def test_nan_in_a_file_names_the_row(tmp_path, capsys):
    array = points(50).numpy().copy()
    array[17, 0] = np.nan
    np.save(tmp_path / "bad.npy", array)
    assert main(["fit", str(tmp_path / "bad.npy"), "--group", "C4", "--out", str(tmp_path / "out")]) == 2
    assert "row 17 holds nan" in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_truncated_model_is_named_and_left_alone(cloud, tmp_path, capsys):
    fit_cloud(cloud, tmp_path / "out")
    path = tmp_path / "out" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    capsys.readouterr()
    assert main(["score", str(tmp_path / "out"), cloud]) == 2
    assert "truncated or damaged" in one_line(capsys)


@pytest.mark.long
def test_score_needs_events_of_the_models_shape(cloud, tmp_path, capsys):
    fit_cloud(cloud, tmp_path / "out")
    np.save(tmp_path / "wide.npy", np.zeros((4, 3)))
    capsys.readouterr()
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "wide.npy")]) == 2
    assert "expected event shape (2,), received (3,)" in one_line(capsys)


def test_the_whole_error_on_request(tmp_path):
    with pytest.raises(ValueError, match="no such file"):
        main(["--traceback", "check", str(tmp_path)])


@pytest.mark.long
def test_the_same_seed_samples_the_same_events(cloud, tmp_path):
    fit_cloud(cloud, tmp_path / "out")
    torch.manual_seed(0)
    draws = []
    for seed in ("1", "1", "2"):
        main(["sample", str(tmp_path / "out"), "-n", "5", "--seed", seed, "--out", str(tmp_path / "s.npy")])
        draws.append(np.load(tmp_path / "s.npy"))
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])


@pytest.mark.long
def test_a_finished_run_goes_on_for_more_steps(cloud, tmp_path, capsys):
    out = tmp_path / "out"
    assert fit_cloud(cloud, out) == 0
    first = (out / "model.safetensors").read_bytes()
    more = ["fit", cloud, "--group", "D4", "--out", str(out), "--flow", "radial", "--quiet"]
    assert main([*more, "--more-steps", "4"]) == 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 7 and (out / "model.safetensors").read_bytes() != first
    assert main([*more, "--resume", "--steps", "9"]) == 0
    assert json.loads((out / "metrics.json").read_text())["steps"] == 9
    capsys.readouterr()
    for options, message in [
        (["--more-steps", "2", "--seed", "5"], "other"),
        (["--more-steps", "2", "--steps", "3"], "either --steps"),
        (["--more-steps", "0"], "at least 1"),
        (["--resume", "--steps", "8"], "9 steps are done already"),
        (["--more-steps", "2", "--out", str(tmp_path / "none")], "no checkpoint to continue from"),
    ]:
        assert main([*more, *options]) == 2
        assert message in one_line(capsys)
