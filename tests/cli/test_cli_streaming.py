"""The commands score and sample on files of any size: shards, interruptions, several devices, large files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pyro_gflows import save
from pyro_gflows.cli import main
from pyro_gflows.datasets import large_files
from tests.small_flows import points, small_flow

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def model(tmp_path):
    save(small_flow().float(), tmp_path / "model")
    return str(tmp_path / "model")


@pytest.fixture
def cloud(tmp_path):
    np.save(tmp_path / "cloud.npy", points(2500).numpy())
    return str(tmp_path / "cloud.npy")


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir()}


def joined(folder):
    return np.concatenate([np.load(path) for path in sorted(Path(folder).glob("*.npy"))])


def one_line(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


def test_shards_of_scores_and_samples_are_those_of_one_file(model, cloud, tmp_path, capsys):
    few = ["--shard-rows", "700"]
    assert main(["score", model, cloud, "--out", str(tmp_path / "scores.npy")]) == 0
    in_one = capsys.readouterr()
    assert main(["score", model, cloud, "--out", str(tmp_path / "scores"), *few]) == 0
    in_shards = capsys.readouterr()
    assert in_shards.out.splitlines()[:2] == in_one.out.splitlines()[:2]
    assert in_one.err == in_shards.err == ""  # no progress bar where there is no terminal
    assert len(contents(tmp_path / "scores")) == 8
    np.testing.assert_allclose(joined(tmp_path / "scores"), np.load(tmp_path / "scores.npy"), atol=1e-5)
    for out in ("samples", "samples.npy"):
        assert main(["sample", model, "-n", "1500", "--seed", "3", "--out", str(tmp_path / out), *few]) == 0
    assert np.array_equal(joined(tmp_path / "samples"), np.load(tmp_path / "samples.npy"))
    assert main(["score", model, str(tmp_path / "samples")]) == 0  # a folder of shards is read again
    assert "events: 1500" in capsys.readouterr().out


def killed(command, folder):
    """Run a command until three shards are done, and kill it."""
    process = subprocess.Popen([sys.executable, "-m", "pyro_gflows", *command], env=ENVIRONMENT)
    try:
        for _ in range(6000):
            if len(list(folder.glob(".shard-*.json"))) >= 3:
                break
            assert process.poll() is None
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    return len(list(folder.glob(".shard-*.json")))


@pytest.mark.long
@pytest.mark.parametrize("out", ["out", pytest.param("out.npy", marks=pytest.mark.slow)])
def test_a_killed_command_goes_on_to_the_bytes_of_an_unbroken_one(out, model, tmp_path, capsys):
    (tmp_path / "whole").mkdir()
    command = ["sample", model, "-n", "40000", "--shard-rows", "400", "--quiet", "--out"]
    folder = tmp_path / ("out" if out == "out" else ".out.npy.shards")
    done = killed([*command, str(tmp_path / out)], folder)
    assert 3 <= done < 100 and not (tmp_path / "out.npy").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in folder.glob(".shard-*.json")}
    if out == "out":
        assert main([*command, str(tmp_path / out)]) == 2  # not without the option
        assert "give --resume to go on with them" in one_line(capsys)
    few = ["-n", "5000"]  # the unbroken command is long; another number of samples is refused
    assert main([*command, str(tmp_path / out), "--resume", *few]) == 2
    assert "another number of rows" in one_line(capsys)
    assert main([*command, str(tmp_path / out), "--resume"]) == 0
    if out == "out":
        assert {name: (folder / name).stat().st_mtime_ns for name in kept} == kept
        assert len(list(folder.iterdir())) == 200  # and nothing of what was being written
        found = joined(folder)
    else:
        assert not folder.exists()
        found = np.load(tmp_path / out)
    assert main([*command, str(tmp_path / "whole" / "whole.npy")]) == 0
    assert found.tobytes() == np.load(tmp_path / "whole" / "whole.npy").tobytes()


@pytest.mark.long
def test_two_devices_write_the_bytes_of_one(model, cloud, tmp_path, capfd):
    pytest.importorskip("lightning")
    few, two = ["--shard-rows", "300", "--quiet"], ["--devices", "2", "--accelerator", "cpu"]
    for out, more in (("one", []), ("two", two)):
        assert main(["score", model, cloud, "--out", str(tmp_path / out), *few, *more]) == 0
    lines = capfd.readouterr().out.splitlines()
    assert lines[:2] == lines[3:5] and len(lines) == 6  # said once
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.slow
def test_two_devices_draw_the_samples_of_one_and_go_on_for_it(model, tmp_path):
    pytest.importorskip("lightning")
    command = ["sample", model, "-n", "2000", "--shard-rows", "300", "--quiet", "--out"]
    assert main([*command, str(tmp_path / "one")]) == 0
    assert main([*command, str(tmp_path / "two")]) == 0
    for number in (1, 2, 5):
        (tmp_path / "two" / f".shard-{number:05d}.json").unlink()
        (tmp_path / "two" / f"shard-{number:05d}.npy").unlink()
    assert main([*command, str(tmp_path / "two"), "--resume", "--devices", "2", "--accelerator", "cpu"]) == 0
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("form", ["vectors", "images"])
def test_a_large_file_is_scored_like_a_small_one(form, tmp_path, capsys, monkeypatch):
    data = str(tmp_path / "data.npy")
    if form == "vectors":
        np.save(data, points(1500).numpy())
        fit = ["fit", data, "--group", "D4", "--flow", "radial", "--steps", "1", "--quiet"]
    else:
        np.save(data, np.random.default_rng(0).integers(0, 17, size=(60, 4, 4), dtype=np.uint8))
        fit = ["fit", data, "--group", "C4", "--flow", "image-coupling", "--steps", "1", "--quiet", "--batch-size", "8"]
    assert main([*fit, "--out", str(tmp_path / "model")]) == 0
    capsys.readouterr()
    printed = []
    for name, line in (("small.npy", large_files.LARGE), ("large.npy", 100)):
        monkeypatch.setattr(large_files, "LARGE", line)
        assert main(["score", str(tmp_path / "model"), data, "--out", str(tmp_path / name)]) == 0
        printed.append(capsys.readouterr().out.splitlines()[:-1])
    assert printed[0] == printed[1] and len(printed[0]) >= (2 if form == "vectors" else 3)
    assert (tmp_path / "small.npy").read_bytes() == (tmp_path / "large.npy").read_bytes()


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["score", "MODEL", "CLOUD", "--resume"], "expected --out with --resume"),
        (["score", "MODEL", "CLOUD", "--shard-rows", "0"], "--shard-rows to be at least 1"),
        (["sample", "MODEL", "--out", "OUT/none/x.npy"], "no such folder for --out"),
        (["sample", "MODEL", "--out", "OUT/x.parquet"], "expected --out to end in .npy or .csv, or to be a folder"),
        (["sample", "MODEL", "--out", "CLOUD/x"], "no such folder for --out"),
        (["score", "MODEL", "WIDE"], "expected event shape (2,), received (3,)"),
        (["score", "MODEL", "FOLDER"], "expected event shape (2,), received (3,)"),
        (["score", "MODEL", "MIXED"], "b.npy holds float64 events of shape (3,)"),
        (["score", "MODEL", "COUNTS"], "expected floating-point values"),
        (["score", "MODEL", "none.parquet"], "no such file or folder"),
        (["score", "MODEL", "CLOUD", "--devices", "0"], "at least 1, or auto"),
        (["score", "MODEL", "CLOUD", "--accelerator", "cpu"], "--accelerator needs --devices"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_one_line(command, message, model, cloud, tmp_path, capsys):
    for name, arrays in (
        ("folder", {"a": np.zeros((4, 3)), "b": np.zeros((4, 3))}),
        ("mixed", {"a": np.zeros((4, 2)), "b": np.zeros((4, 3))}),
        ("counts", {"a": np.zeros((4, 2), dtype=np.int64)}),
    ):
        (tmp_path / name).mkdir()
        for file, array in arrays.items():
            np.save(tmp_path / name / f"{file}.npy", array)
    np.save(tmp_path / "wide.npy", np.zeros((4, 3)))
    words = {"MODEL": model, "CLOUD": cloud, "OUT": str(tmp_path), "WIDE": str(tmp_path / "wide.npy")}
    words |= {name.upper(): str(tmp_path / name) for name in ("folder", "mixed", "counts")}
    given = [words.get(word.split("/")[0], word.split("/")[0]) + word[len(word.split("/")[0]) :] for word in command]
    try:
        code = main(given)
    except SystemExit as stop:
        code = stop.code
    assert code == 2
    assert message in one_line(capsys)


def test_a_wrong_row_of_a_large_file_is_named(model, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(large_files, "LARGE", 100)
    x = points(1200)
    x[1100, 0] = float("inf")
    np.save(tmp_path / "bad.npy", x.numpy())
    assert main(["score", model, str(tmp_path / "bad.npy")]) == 2
    assert "bad.npy: row 1100 holds inf" in one_line(capsys)


@pytest.mark.long
def test_a_folder_of_shards_is_fitted_checked_and_scored(tmp_path, capsys):
    (tmp_path / "events").mkdir()
    for number in range(3):
        np.save(tmp_path / "events" / f"{number}.npy", points(400, seed=number).numpy())
    events, out = str(tmp_path / "events"), str(tmp_path / "out")
    fit = ["fit", events, "--group", "D4", "--flow", "radial", "--quiet", "--out", out]
    assert main([*fit, "--steps", "3"]) == 0
    assert "is read as vectors of 2 coordinates" in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["data"] == events and metrics["invariance_error"] < 1e-10
    assert main([*fit, "--steps", "5", "--resume"]) == 0
    np.save(tmp_path / "events" / "3.npy", points(400, seed=3).numpy())
    capsys.readouterr()
    assert main([*fit, "--steps", "7", "--resume"]) == 2  # other data
    assert "data" in one_line(capsys)
    assert main(["check-data", events, "--group", "D4"]) == 0
    assert main(["score", out, events]) == 0
    assert "events: 1600" in capsys.readouterr().out
    assert main(["fit", str(tmp_path / "none.parquet"), "--group", "D4", "--out", out + "2"]) == 2
    assert "no such file or folder" in one_line(capsys)
