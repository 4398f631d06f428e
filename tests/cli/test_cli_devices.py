"""The command fit on several devices: which process prints and writes, and what is refused before any is started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from pyro_gflows.cli import main
from tests.small_flows import points

ROOT = Path(__file__).parents[2]
LAUNCHED = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS")


@pytest.fixture(autouse=True)
def alone(monkeypatch):
    for name in LAUNCHED:
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def options(tmp_path):
    np.save(tmp_path / "cloud.npy", points(200).numpy())
    return [str(tmp_path / "cloud.npy"), "--group", "D4", "--flow", "radial", "--quiet"]


def in_processes(*command):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, *command], capture_output=True, text=True, env=environment, timeout=300, check=False
    )


@pytest.mark.long
def test_the_first_process_alone_prints_and_writes_and_one_device_goes_on(options, tmp_path, capsys):
    pytest.importorskip("lightning")
    out = tmp_path / "out"
    fit = ["fit", *options, "--out", str(out)]
    done = in_processes("-m", "pyro_gflows", *fit, "--steps", "3", "--devices", "2", "--accelerator", "cpu")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == len(set(lines)) and lines[-1] == f"written to {out}"
    metrics = json.loads((out / "metrics.json").read_text())
    assert metrics["steps"] == 3 and metrics["nll"] > 0
    first = (out / "model.safetensors").read_bytes()
    assert main([*fit, "--resume", "--steps", "5"]) == 0
    assert json.loads((out / "metrics.json").read_text())["steps"] == 5
    assert (out / "model.safetensors").read_bytes() != first


@pytest.mark.slow
def test_under_torchrun_an_error_in_all_processes_is_said_once(options, tmp_path):
    pytest.importorskip("lightning")
    command = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "-m", "pyro_gflows", "fit", *options]
    command += ["--out", str(tmp_path / "out"), "--devices", "auto", "--accelerator", "cpu"]
    done = in_processes(*command, "--steps", "300", "--lr", "1e9")
    assert done.returncode != 0
    assert done.stdout.count("group D4, preset own") == 1
    assert done.stderr.count("pyro-gflows: error") == 1, done.stderr
    assert "training diverged" in done.stderr and "a lower --lr" in done.stderr
    assert (tmp_path / "out" / "run.json").exists() and not (tmp_path / "out" / "model.json").exists()


@pytest.mark.slow
def test_spawned_processes_train_with_augmented_noisy_images(tmp_path):
    pytest.importorskip("lightning")
    np.save(tmp_path / "x.npy", np.random.default_rng(0).integers(0, 17, size=(60, 4, 4), dtype=np.uint8))
    command = ["-m", "pyro_gflows", "fit", str(tmp_path / "x.npy"), "--group", "C1", "--augment", "C4", "--quiet"]
    command += ["--flow", "image-coupling", "--steps", "2", "--batch-size", "8", "--out", str(tmp_path / "out")]
    done = in_processes(*command, "--devices", "2", "--accelerator", "cpu", "--strategy", "ddp_spawn")
    assert done.returncode == 0, done.stderr
    assert json.loads((tmp_path / "out" / "metrics.json").read_text())["augment"] == "C4"


@pytest.mark.slow
def test_a_process_that_is_killed_ends_the_command_which_says_so(options, tmp_path):
    pytest.importorskip("lightning")
    out = tmp_path / "out"
    command = ["-m", "pyro_gflows", "fit", *options, "--out", str(out), "--steps", "100000"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        [sys.executable, *command, "--devices", "2", "--accelerator", "cpu"],
        env=environment,
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    while not (out / "checkpoint.safetensors").exists():
        assert process.poll() is None
        time.sleep(0.05)
    (other,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    os.kill(int(other), signal.SIGKILL)
    error = process.communicate(timeout=120)[1]
    assert process.returncode == 2
    assert "another process of this command has ended" in error and "--resume" in error and "Traceback" not in error


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--devices", "0"], "expected a number of devices, at least 1, or auto"),
        (["--devices", "many"], "or auto, got 'many'"),
        (["--devices", "2", "--strategy", "fsdp"], "invalid choice: 'fsdp'"),
        (["--devices", "2", "--precision", "16-true"], "invalid choice: '16-true'"),
        (["--devices", "2", "--nodes", "0"], "got --nodes 0"),
        (["--devices", "2", "--accelerator", "cpu", "--batch-size", "1"], "raise --batch-size"),
        (["--strategy", "ddp", "--nodes", "2"], "--nodes, --strategy needs --devices"),
    ],
    ids=lambda value: value if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_is_refused_before_a_process_starts(more, message, options, tmp_path, capsys):
    if "2" in more:
        pytest.importorskip("lightning")
    try:
        code = main(["fit", *options, "--out", str(tmp_path / "out"), *more])
    except SystemExit as stop:
        code = stop.code
    error = capsys.readouterr().err
    assert code == 2 and error.count("\n") == 1 and message in error, error
    assert not (tmp_path / "out").exists()


def test_torchrun_without_the_option_is_refused(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert main(["fit", *options, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "give --devices auto" in error and "devices=" not in error
    assert not (tmp_path / "out").exists()


def test_several_devices_need_lightning(options, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "lightning", None)
    assert main(["fit", *options, "--out", str(tmp_path / "out"), "--devices", "2", "--accelerator", "cpu"]) == 2
    assert "pip install 'pyro-gflows[lightning]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
