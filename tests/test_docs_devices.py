"""The recipes of the page "More than one device" run as they stand there, each in two processes (gloo) on the CPU.

A recipe is a code block: a file if its first lines name it, else a command. What a machine at hand does not have is
imitated: SLURM by an ``srun`` that starts two tasks with the variables of SLURM in their environment, two machines by
two launchers on one, a notebook by an interactive interpreter.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_gflows import load, save
from pyro_gflows.evaluation.scores import log_probs

pytest.importorskip("lightning")
pytestmark = pytest.mark.long

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "devices.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python|sh)\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
FILES = {name[1]: block for block in BLOCKS if (name := re.search(r"\A(?:#!.*\n)?# (\w+\.(?:py|sh))\n", block))}
COMMANDS = [block.strip() for block in BLOCKS if block not in FILES.values()]

SRUN = """#!/bin/bash
# starts the tasks of a job, as srun does, on one machine that stands for all
for rank in $(seq 0 $((SLURM_NTASKS - 1))); do
    export SLURM_PROCID=$rank SLURM_LOCALID=$((rank % SLURM_NTASKS_PER_NODE))
    export SLURM_NODEID=$((rank / SLURM_NTASKS_PER_NODE))
    "$@" &
    tasks="$tasks $!"
done
for task in $tasks; do wait "$task" || exit 1; done
"""
LAUNCHED = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "NODES")


@pytest.fixture
def shell(tmp_path):
    """A function that runs commands in a folder with the files of the page, all at once; it returns what they print."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    tools = tmp_path / "bin"
    tools.mkdir()
    programs = {
        "python": f'exec {sys.executable} "$@"',
        "torchrun": f'exec {sys.executable} -m torch.distributed.run "$@"',
        "pyro-gflows": f'exec {sys.executable} -m pyro_gflows "$@"',
    }
    for name, line in programs.items():
        (tools / name).write_text(f"#!/bin/bash\n{line}\n")
        (tools / name).chmod(0o755)
    left = {name: value for name, value in os.environ.items() if name not in LAUNCHED and "SLURM" not in name}
    path = f"{tools}{os.pathsep}{os.environ['PATH']}"
    plain = left | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}

    def run(*commands, **variables):
        started = [
            subprocess.Popen(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=plain | variables,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                start_new_session=True,
            )
            for command in commands
        ]
        try:
            printed = [process.communicate(timeout=300) for process in started]
        except subprocess.TimeoutExpired:
            for process in started:  # and all that they have started
                os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"not done in two minutes: {process.communicate()[1][-3000:]}") from None
        for process, (_, errors) in zip(started, printed, strict=True):
            assert process.returncode == 0, errors[-3000:]
        return "".join(out for out, _ in printed)

    return run


def command(words):
    (found,) = [line for line in COMMANDS if words in line]
    return found


def alone(name, tmp_path, monkeypatch):
    """The flow that a script of the page trains in this one process."""
    monkeypatch.chdir(tmp_path)
    text = FILES[name]
    text = text.replace("devices=2", "devices=1").replace(
        'Devices("auto", num_nodes=int(os.environ.get("NODES", "1")))', "1"
    )
    text = text.replace('folder="run"', 'folder="alone"').replace("run/checkpoint", "alone/checkpoint")
    found = {"__name__": "alone"}
    with torch.random.fork_rng():
        exec(compile(text.replace('save(flow, "eight")', "pass"), name, "exec"), found)
    return found["flow"]


def free_port():
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def same(flow, other):
    theirs = other.state_dict()
    for name, tensor in flow.state_dict().items():
        torch.testing.assert_close(tensor, theirs[name], rtol=1e-3, atol=1e-5)


def test_every_block_is_named_here():
    ours = Path(__file__).read_text(encoding="utf-8").split("def command", 1)[1]
    assert len(FILES) == 8 and len(COMMANDS) == 8 and COMMANDS[0] == "fit(flow, data, devices=2)"
    for name in FILES:
        assert re.search(rf"\b{name}\b", ours), name


def test_script(shell, tmp_path, monkeypatch):
    printed = shell(command("python train.py"))
    assert printed.count("FitResult(8 steps") == 1
    same(load(tmp_path / "eight"), alone("train.py", tmp_path, monkeypatch))


def test_slurm(shell, tmp_path, monkeypatch):
    """Two machines of one task each: the numbers of the page with one task in place of four."""
    (tmp_path / "bin" / "srun").write_text(SRUN)
    (tmp_path / "bin" / "srun").chmod(0o755)
    job = (tmp_path / "job.sh").read_text()
    nodes, tasks = (int(re.search(rf"--{option}=(\d+)", job)[1]) for option in ("nodes", "ntasks-per-node"))
    assert (nodes, tasks) == (2, 4) and f"--gpus-per-node={tasks}" in job
    variables = {"NNODES": nodes, "NTASKS": nodes, "NTASKS_PER_NODE": 1, "JOB_ID": os.getpid()}
    variables |= {"JOB_NAME": "job.sh", "NODELIST": "localhost"}
    printed = shell("bash job.sh", **{f"SLURM_{name}": str(value) for name, value in variables.items()})
    assert printed.count("FitResult(8 steps") == 1
    same(load(tmp_path / "eight"), alone("cluster.py", tmp_path, monkeypatch))


def test_notebook(shell, tmp_path, monkeypatch):
    with (tmp_path / "cell.py").open("a") as file:
        file.write("torch.save(flow, 'flow.pt')\nprint(result)\n")
    printed = shell("python -i cell.py")
    assert printed.count("FitResult(8 steps") == 1
    flow = torch.load(tmp_path / "flow.pt", weights_only=False)
    same(flow, alone("train.py", tmp_path, monkeypatch))


def test_trainer(shell, tmp_path, monkeypatch):
    shell(command("python with_trainer.py"))
    same(load(tmp_path / "eight"), alone("train.py", tmp_path, monkeypatch))


def test_own_loop(shell, tmp_path, monkeypatch):
    shell(command("torchrun --nproc-per-node=2 own_loop.py"))
    for name, value in {"RANK": 0, "WORLD_SIZE": 1, "MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}.items():
        monkeypatch.setenv(name, str(value))
    same(load(tmp_path / "eight"), alone("own_loop.py", tmp_path, monkeypatch))


def test_command_line(shell, tmp_path):
    printed = shell(command("pyro-gflows fit"))
    assert printed.count("written to eight") == 1
    assert json.loads((tmp_path / "eight" / "metrics.json").read_text())["steps"] == 8


@pytest.mark.slow
def test_drawing_and_scoring(shell, tmp_path, monkeypatch):
    flow = alone("train.py", tmp_path, monkeypatch)
    save(flow, tmp_path / "eight")
    shell(command("pyro-gflows sample"))
    draws, scores = (
        np.concatenate([np.load(shard) for shard in sorted((tmp_path / name).glob("*.npy"))])
        for name in ("draws", "scores")
    )
    assert draws.shape == (3000, 2) and len(np.unique(draws[:, 0])) > 2990
    np.testing.assert_allclose(scores, log_probs(flow, draws), rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_torchrun_on_one_machine(shell, tmp_path, monkeypatch):
    printed = shell(command("torchrun --nproc-per-node=2 cluster.py"))
    assert printed.count("FitResult(8 steps") == 1
    same(load(tmp_path / "eight"), alone("cluster.py", tmp_path, monkeypatch))


@pytest.mark.slow
def test_torchrun_on_two_machines(shell, tmp_path, monkeypatch):
    line = command("--nnodes=2").replace("node0:29500", f"localhost:{free_port()}")
    line = line.replace("--nproc-per-node=2", "--nproc-per-node=1")
    printed = shell(line, line)
    assert printed.count("FitResult(8 steps") == 1
    same(load(tmp_path / "eight"), alone("cluster.py", tmp_path, monkeypatch))


def test_the_snippets_run():
    for name in ("larger.py", "loader.py"):
        exec(compile(FILES[name], name, "exec"), {})
