"""The commands know whether a folder holds a finished run, a run that was stopped, one with other options, or none."""

import json
import os
import signal

import numpy as np
import pytest

from pyro_gflows.cli import main
from pyro_gflows.experiments import runs as experiments
from pyro_gflows.training.checkpoint import CHECKPOINT
from tests.small_flows import points

BASE = ["--group", "D4", "--flow", "radial", "--steps", "3", "--quiet"]


@pytest.fixture
def cloud(tmp_path):
    np.save(tmp_path / "cloud.npy", points(60).numpy())
    return str(tmp_path / "cloud.npy")


def fit(cloud, out, *more):
    return main(["fit", cloud, "--out", str(out), *BASE, *more])


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.fixture
def stopped(cloud, tmp_path, monkeypatch, capsys):
    """The folder of a run that Ctrl-C ended after its first step."""
    own, calls = experiments.fit, []

    def interrupted(flow, data, **arguments):
        def augment(x, generator):
            calls.append(None)
            if len(calls) == 2:  # the first one sets the scales; a second signal would not wait for the step
                os.kill(os.getpid(), signal.SIGINT)
            return x

        return own(flow, data, **{**arguments, "augment": augment})

    monkeypatch.setattr(experiments, "fit", interrupted)
    assert fit(cloud, tmp_path / "stopped") == 130
    monkeypatch.undo()
    assert "stopped after step 1" in one_line(capsys)
    return tmp_path / "stopped"


@pytest.mark.long
def test_a_finished_run_is_replaced_on_request_only(cloud, tmp_path, capsys):
    out = tmp_path / "out"
    assert fit(cloud, out) == 0
    before = contents(out)
    for more in ((), ("--seed", "1"), ("--group", "C4")):
        assert fit(cloud, out, *more) == 2
        error = one_line(capsys)
        assert "holds a finished run (radial under D4" in error and "--overwrite" in error
    assert contents(out) == before
    assert fit(cloud, out, "--seed", "1", "--overwrite") == 0
    assert json.loads((out / "metrics.json").read_text())["seed"] == 1


@pytest.mark.long
def test_a_command_that_fails_destroys_nothing(cloud, tmp_path, capsys):
    out = tmp_path / "out"
    assert fit(cloud, out) == 0
    before = contents(out)
    for wrong in (["--group", "SO(3)"], ["--flow", "coupling"], ["--steps", "0"], ["--variational"]):
        assert fit(cloud, out, "--overwrite", *wrong) == 2
    assert contents(out) == before
    assert fit(cloud, out, "--overwrite", "--resume") == 2
    assert "got both" in capsys.readouterr().err


@pytest.mark.long
def test_what_replaces_a_run_leaves_nothing_of_it(cloud, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    assert fit(cloud, out) == 0

    def stop(flow, data, **_):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiments, "fit", stop)
    assert fit(cloud, out, "--overwrite", "--group", "C4") == 130
    monkeypatch.undo()
    capsys.readouterr()
    assert main(["sample", str(out), "--out", str(tmp_path / "s.npy")]) == 2
    assert "no such file" in one_line(capsys)
    assert not (out / "density.png").exists()


@pytest.mark.parametrize("command", ["sample", "score", "check"])
def test_a_run_that_was_stopped_says_so(command, stopped, cloud, tmp_path, capsys):
    more = {"sample": ["--out", str(tmp_path / "s.npy")], "score": [cloud], "check": []}[command]
    assert main([command, str(stopped), *more]) == 2
    error = one_line(capsys)
    assert "was stopped after step 1 of 3" in error and "--resume" in error


@pytest.mark.long
def test_a_run_that_was_stopped_is_not_overwritten(stopped, cloud, capsys):
    before = contents(stopped)
    assert fit(cloud, stopped) == 2
    error = one_line(capsys)
    assert "stopped after step 1 of 3" in error and "--resume goes on, --overwrite starts anew" in error
    assert contents(stopped) == before
    assert fit(cloud, stopped, "--overwrite") == 0


@pytest.mark.long
@pytest.mark.parametrize(
    ("other", "said"),
    [
        (["--group", "C4"], "--group is D4 there and C4 here"),
        (["--flow", "residual"], "--flow is radial there and residual here"),
        (["--batch-size", "7"], "--batch-size is 512 there and 7 here"),
        (["--lr", "0.5"], "--lr is 0.01 there and 0.5 here"),
        (["--seed", "4"], "--seed is 0 there and 4 here"),
        (["--augment", "D4"], "--augment is not given there and D4 here"),
        (["--group", "C4", "--seed", "4"], "--group is D4 there and C4 here, --seed is 0 there and 4 here"),
    ],
)
def test_resume_names_the_options_that_differ_and_nothing_else(other, said, stopped, cloud, capsys):
    before = contents(stopped)
    assert fit(cloud, stopped, "--resume", *other) == 2
    error = one_line(capsys)
    assert f": {said}; give the same options" in error and "{" not in error and len(error) < 400
    assert contents(stopped) == before
    assert fit(cloud, stopped, "--resume") == 0


@pytest.mark.long
def test_resume_takes_the_same_options_however_they_are_written(stopped, cloud, capsys):
    assert fit(cloud, stopped, "--resume", "--group", "d4", "--lr", "1e-2") == 0


def test_resume_without_a_run(cloud, tmp_path, capsys):
    assert fit(cloud, tmp_path / "out", "--resume") == 2
    assert "leave --resume out" in one_line(capsys)
    assert not (tmp_path / "out").exists()


@pytest.mark.long
def test_a_model_from_before_the_run_went_on_is_noted(cloud, tmp_path, stopped, capsys):
    out = tmp_path / "out"
    assert fit(cloud, out) == 0
    (out / CHECKPOINT).write_bytes((stopped / CHECKPOINT).read_bytes())
    capsys.readouterr()
    assert main(["sample", str(out), "--out", str(tmp_path / "s.npy")]) == 0
    assert "went on and was stopped after step 1 of 3; this is the model of step 3" in one_line(capsys)


@pytest.mark.long
def test_a_folder_of_an_earlier_version_is_read(cloud, tmp_path, capsys):
    out = tmp_path / "out"
    assert fit(cloud, out) == 0
    (out / "run.json").unlink()
    assert main(["sample", str(out), "-n", "5", "--out", str(tmp_path / "s.npy")]) == 0
    assert np.load(tmp_path / "s.npy").shape == (5, 2)
    assert main(["score", str(out), cloud]) == 0
    assert fit(cloud, out, "--resume") == 0
