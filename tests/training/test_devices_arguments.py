"""Devices that a run cannot have are refused before any process is started; precision and one device by Fabric."""

import importlib.util

import pytest
import torch

from pyro_gflows.training import Adam, Devices, FitSettings, fit, fit_energy
from pyro_gflows.training.processes import started_by_others
from tests.small_flows import points, small_flow

SETTINGS = FitSettings(steps=3, batch_size=16, optimizer=Adam(lr=1e-2))


def by_likelihood(devices, *, settings=SETTINGS, flow=None):
    return fit(flow or small_flow(), points(40), settings=settings, devices=devices, progress=False)


def by_energy(devices):
    return fit_energy(small_flow(), lambda x: -x.square().sum(-1), settings=SETTINGS, devices=devices, progress=False)


@pytest.fixture
def no_launch(monkeypatch):
    """No process is started, and whether that was tried."""
    tried = []
    monkeypatch.setattr("pyro_gflows.training.fitting.launch", lambda *args, **kwargs: tried.append(args))
    return tried


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"count": 0}, "a number of devices, at least 1, or 'auto', got 0"),
        ({"count": True}, "a number of devices"),
        ({"count": "all"}, "got 'all'"),
        ({"num_nodes": 0}, "num_nodes=0"),
        ({"strategy": "fsdp"}, "one of auto, ddp, .* got 'fsdp'; each device holds all weights"),
        ({"strategy": "deepspeed_stage_2"}, "got 'deepspeed_stage_2'"),
        ({"precision": "bf16-true"}, "too few digits"),
        ({"precision": "bf16-mixed"}, "one of 32-true, 64-true, got 'bf16-mixed'; .* into the forward of your own"),
        ({"accelerator": "abacus"}, "expected accelerator to be one of auto, cpu, .* got 'abacus'"),
    ],
)
def test_unknown_devices(arguments, message):
    with pytest.raises(ValueError, match=message):
        Devices(**arguments)


@pytest.mark.parametrize("wrong", [1.5, [0, 1], torch.device("cpu"), True])
def test_what_is_no_number_of_devices(wrong):
    with pytest.raises(TypeError, match=r"a number, 'auto' or Devices\(...\)"):
        by_likelihood(wrong)


@pytest.mark.parametrize("train", [by_likelihood, by_energy])
def test_without_lightning(train, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ImportError, match=r"pip install 'pyro-gflows\[lightning\]'"):
        train(2)
    train(1)  # which needs none


def test_more_gpus_than_there_are(no_launch, monkeypatch):
    pytest.importorskip("lightning")
    flow = small_flow()
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(ValueError, match="as many devices as this machine has GPUs, 2, got 3; .* accelerator='cpu'"):
        by_likelihood(3, flow=flow)
    by_likelihood(Devices(3, accelerator="cpu"), flow=flow)
    by_likelihood(2, flow=flow)
    assert len(no_launch) == 2


@pytest.mark.parametrize(
    ("declared", "found"),
    [
        ({"WORLD_SIZE": "4", "RANK": "1"}, 4),
        ({"WORLD_SIZE": "4"}, None),  # as Lightning sets it for its own processes
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0"}, 8),
        ({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_NAME": "bash"}, None),
        ({}, None),
    ],
)
def test_the_processes_that_others_have_started(declared, found, monkeypatch):
    for name in ("WORLD_SIZE", "RANK", "SLURM_NTASKS", "SLURM_PROCID", "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in declared.items():
        monkeypatch.setenv(name, value)
    assert started_by_others() == found
    assert Devices("auto", num_nodes=2, accelerator="cpu").processes == (2 if found is None else found)


def test_another_number_of_processes_than_were_started(no_launch, monkeypatch):
    pytest.importorskip("lightning")
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(ValueError, match=r"expected 2 processes for 2 devices on 1 machines, but 4 were started"):
        by_likelihood(2)
    with pytest.raises(ValueError, match="got 'ddp_fork', which starts further ones in each of them"):
        by_likelihood(Devices("auto", strategy="ddp_fork"))
    by_likelihood("auto")
    assert len(no_launch) == 1


def test_fewer_events_than_processes(no_launch):
    pytest.importorskip("lightning")
    with pytest.raises(ValueError, match="got batches of 2 for 3 processes; raise batch_size"):
        by_likelihood(Devices(3, accelerator="cpu"), settings=FitSettings(steps=1, batch_size=2))
    assert not no_launch


def test_a_flow_in_double_precision():
    pytest.importorskip("lightning")
    flow = small_flow().float()
    by_likelihood(Devices(1, precision="64-true", accelerator="cpu"), flow=flow)
    assert {weight.dtype for weight in flow.parameters()} == {torch.float64}


@pytest.mark.parametrize("precision", [None, "32-true"])
def test_other_precisions_keep_the_dtype_and_the_curve(precision):
    pytest.importorskip("lightning")
    plain, flow = small_flow(), small_flow()
    curve = by_likelihood(None, flow=plain).train_curve
    assert by_likelihood(Devices(1, precision=precision, accelerator="cpu"), flow=flow).train_curve == curve
    assert {weight.dtype for weight in flow.parameters()} == {torch.float64}
