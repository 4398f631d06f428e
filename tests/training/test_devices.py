"""Fits in two processes (gloo) against the same fits in one: curves, weights, errors, stops, deaths and resumed runs.

Each test starts a script once (several.py) and looks at what all of its processes have found (contracts 53 and 54).
"""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.training import several

pytest.importorskip("lightning")
pytestmark = pytest.mark.long

SCRIPT = Path(several.__file__)
ROOT = SCRIPT.parents[2]


def start(name, folder, *, strategy="ddp"):
    """Runs a function of several.py in two processes, and returns the exit code and what it wrote."""
    launcher = [sys.executable, "-W", "error::UserWarning"]
    if strategy == "torchrun":
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2"]
    unset = {"WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_PORT", "MASTER_ADDR", "NODE_RANK"}
    env = {name: value for name, value in os.environ.items() if name not in unset}
    env |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [*launcher, str(SCRIPT), name, str(folder), strategy]
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=300, cwd=folder)


def found(name, folder, *, strategy="ddp"):
    ended = start(name, folder, strategy=strategy)
    assert ended.returncode == 0, ended.stderr[-3000:]
    return json.loads((folder / f"{name}.json").read_text())


def seconds_since_the_end(folder):
    """The seconds since a process wrote that it was about to end."""
    return time.time() - float((folder / "end").read_text())


def same_curve(curve, other, tolerance=1e-6):
    assert [step for step, _ in curve] == [step for step, _ in other]
    assert max(abs(a - b) for (_, a), (_, b) in zip(curve, other, strict=True)) <= tolerance


def same_weights(weights, flow, tolerance=1e-6):
    for name, tensor in flow.state_dict().items():
        torch.testing.assert_close(torch.tensor(weights[name]).to(tensor), tensor, rtol=0, atol=tolerance)


def test_two_processes_follow_the_curve_of_one(tmp_path):
    for name, run in found("curves", tmp_path).items():
        flow = getattr(several, name)()
        result = several.train(flow, None)
        same_curve(run["train"], result.train_curve)
        same_curve(run["validation"], result.validation_curve)
        assert run["final"] == pytest.approx(result.validation_nll, abs=1e-6)
        assert run["weights"][0] == run["weights"][1]
        same_weights(run["weights"][0], flow)


@pytest.mark.parametrize("strategy", ["ddp_spawn", "ddp_fork"])
def test_the_fit_alone_in_other_processes_gives_its_weights_back(strategy, tmp_path):
    run = found("returned", tmp_path, strategy=strategy)
    flow = several.coupling()
    same_curve(run["train"], several.train(flow, None).train_curve)
    same_weights(run["weights"], flow)
    if strategy == "ddp_fork":
        assert run["dtypes"] == ["torch.float64"]
        assert run["diverged"].startswith("FitDiverged: training diverged: the loss is nan at step 1;")


def test_what_all_processes_decide_together(tmp_path):
    run = found("answers", tmp_path)
    assert run["energy"]["ess"] > 0.8 and run["energy"]["weights"][0] == run["energy"]["weights"][1]
    drawn, weights = run["sampler"].values()
    assert len(drawn[0]) == len(drawn[1]) and drawn[0][2:] != drawn[1][2:]  # two calls look for a hidden state
    assert weights[0] == weights[1] and run["own draws"] == 5
    assert run["callbacks"] == [[4, 4, True], [0, 4, True]]  # calls, steps
    assert len(set(run["other data"])) == 1
    assert "expected the same data in all processes, but process 1 has" in run["other data"][0]
    assert run["diverged"][0] == run["diverged"][1] and run["diverged"][0][0].startswith("FitDiverged")
    assert all("raise batch_size" in message for message in run["few rows"])
    before, after = run["buffers"]  # of the running means of a network, each of its own events until they are used
    assert before[0]["0.weight"] == before[1]["0.weight"] and before[0]["1.running_mean"] != before[1]["1.running_mean"]
    assert after[0] == after[1]
    assert all("processes 0 and 1 see the same rows" in message for message in run["loader"])
    assert all("all 2 processes would see the same rows" in message for message in run["plain loader"])


def test_interrupted_in_one_process_and_resumed_is_as_unbroken(tmp_path):
    run = found("stops", tmp_path)
    for case in run.values():  # without and with random draws, which are different in the two processes
        assert case["message"] == ["KeyboardInterrupt: stopped after step 13"] * 2
        assert case["curves"][0] == case["curves"][1]
        assert case["weights"][0] == case["weights"][1]


def test_a_killed_process_ends_the_run_which_resumes_under_torchrun_or_in_one(tmp_path):
    ended = start("killed", tmp_path)
    assert ended.returncode != 0 and seconds_since_the_end(tmp_path) < 60
    assert "Connection closed by peer" in ended.stderr or "Connection reset by peer" in ended.stderr
    shutil.copytree(tmp_path / "run", tmp_path / "one")
    run = found("resumed", tmp_path, strategy="torchrun")
    assert run["curves"][0] == run["curves"][1]
    assert run["weights"][0] == run["weights"][1]
    flow = several.coupling()
    result = several.train(flow, None, folder=tmp_path / "one", resume=True)
    same_curve(result.train_curve, run["curves"][1])
    same_weights(run["weights"][1][0], flow)


def test_a_process_that_fails_says_why_and_ends_the_run(tmp_path):
    ended = start("failing", tmp_path)
    assert ended.returncode != 0 and seconds_since_the_end(tmp_path) < 60
    assert "LookupError: no such shelf" in ended.stderr
