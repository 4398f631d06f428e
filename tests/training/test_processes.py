"""Training is refused in one of several processes, each of which would train a model of its own."""

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from pyro_gflows.datasets import Share, on_first
from pyro_gflows.training import FitSettings, fit, fit_energy
from pyro_gflows.training.processes import is_first_process, raised_in_all_processes
from tests.small_flows import points, small_flow

ROOT = Path(__file__).parents[2]
SETTINGS = FitSettings(steps=1, batch_size=8)


def by_likelihood(folder=None):
    return fit(small_flow(), points(20), settings=SETTINGS, progress=False, folder=folder).steps


def by_energy(folder=None):
    report = fit_energy(small_flow(), lambda x: -x.square().sum(-1), settings=SETTINGS, progress=False, folder=folder)
    return report.run.steps


@pytest.mark.parametrize("train", [by_likelihood, by_energy])
def test_under_torchrun(train, monkeypatch, tmp_path):
    monkeypatch.setenv("WORLD_SIZE", "4")
    with pytest.raises(RuntimeError, match=r"WORLD_SIZE=4 .* each rank would train .* DistributedDataParallel"):
        train(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", ["1", "", "unknown", None])
@pytest.mark.parametrize("train", [by_likelihood, by_energy])
def test_one_process_trains(train, size, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    if size is not None:
        monkeypatch.setenv("WORLD_SIZE", size)
    assert train() == 1


def test_a_group_of_one_rank_trains(tmp_path, monkeypatch):
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        assert by_likelihood() == 1
    finally:
        torch.distributed.destroy_process_group()


@pytest.mark.long
def test_a_group_of_two_ranks_is_refused(tmp_path):
    """However it was made: no variable of the environment says so here."""
    script = f"""
        import os, sys
        import torch
        os.environ.pop("WORLD_SIZE", None)
        sys.path.insert(0, {str(ROOT)!r})
        from tests.training.test_processes import by_energy, by_likelihood
        where = "file://" + {str(tmp_path / "meet")!r}
        torch.distributed.init_process_group("gloo", init_method=where, rank=int(sys.argv[1]), world_size=2)
        for train in (by_likelihood, by_energy):
            try:
                train()
            except RuntimeError as error:
                print(error)
        torch.distributed.destroy_process_group()
    """
    command = [sys.executable, "-c", textwrap.dedent(script)]
    ranks = [subprocess.Popen([*command, str(rank)], stdout=subprocess.PIPE, text=True) for rank in range(2)]
    for rank in ranks:
        out, _ = rank.communicate(timeout=120)
        assert rank.returncode == 0
        assert out.count("a process group of 2 ranks") == 2


NUMBERS = ("RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "SLURM_PROCID", "SLURM_NTASKS")


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, True),
        ({"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "4"}, True),  # torchrun
        ({"RANK": "3", "LOCAL_RANK": "1", "GROUP_RANK": "1", "WORLD_SIZE": "4"}, False),
        ({"RANK": "2", "LOCAL_RANK": "0", "GROUP_RANK": "1", "WORLD_SIZE": "4"}, False),  # the first one of a machine
        ({"SLURM_PROCID": "0", "SLURM_NTASKS": "2"}, True),
        ({"SLURM_PROCID": "1", "SLURM_NTASKS": "2"}, False),
        ({"LOCAL_RANK": "0", "NODE_RANK": "0", "WORLD_SIZE": "2"}, True),  # Lightning
        ({"LOCAL_RANK": "1", "NODE_RANK": "0", "WORLD_SIZE": "2"}, False),
        ({"NODE_RANK": "1"}, False),
    ],
    ids=str,
)
def test_a_process_knows_whether_it_is_the_first_one_before_they_meet(environment, expected, monkeypatch):
    for name in NUMBERS:
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert is_first_process() is expected


class Two:
    """The first one of two processes, of which the second has nothing to say."""

    share = Share(0, 2)

    def gather(self, value):
        return [value, None]


def test_an_error_of_one_process_is_reported_by_that_process(monkeypatch, tmp_path):
    for name in NUMBERS:
        monkeypatch.delenv(name, raising=False)
    own = ValueError("own")
    with pytest.raises(ValueError, match="common") as common:
        on_first(Two(), lambda: int("common"))
    assert not raised_in_all_processes(own)
    for name, value in {"RANK": "3", "LOCAL_RANK": "1", "WORLD_SIZE": "4"}.items():
        monkeypatch.setenv(name, value)
    assert raised_in_all_processes(own)  # they have not met, and the first one of this machine says the same
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert not raised_in_all_processes(own)
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path / 'meet'}", rank=0, world_size=1)
    try:
        assert is_first_process()
        assert raised_in_all_processes(common.value) and not raised_in_all_processes(own)
    finally:
        torch.distributed.destroy_process_group()
