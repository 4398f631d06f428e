import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from pyro_gflows.numerics import RouletteLogDet
from pyro_gflows.serialization.files import read_tensors
from pyro_gflows.training import FitSettings, Validation, fit
from pyro_gflows.training.checkpoint import CHECKPOINT
from tests.small_flows import points, small_flow

pytestmark = pytest.mark.usefixtures("on_both_engines")

ROOT = Path(__file__).parents[2]
SETTINGS = FitSettings(
    steps=30, batch_size=128, seed=3, ema_decay=0.95, validation=Validation(every=8, patience=3), checkpoint_every=5
)


def fit_small(folder, *, resume=False, signal_at=None, number=signal.SIGINT, settings=SETTINGS, data=None):
    """A run with everything random: minibatches, augmentation and the log-det; optionally a signal in its middle."""
    calls = 0

    def augment(x, generator):
        nonlocal calls
        calls += 1
        if calls == signal_at:
            os.kill(os.getpid(), number)
        return x + 0.01 * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    flow = small_flow(log_det=RouletteLogDet())
    data = points() if data is None else data
    validation = points(200, seed=1)
    fit(
        flow,
        data,
        settings=settings,
        validation=validation,
        augment=augment,
        folder=folder,
        resume=resume,
        progress=False,
    )
    return flow.state_dict()


def assert_same(first, second):
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.long
def test_a_run_killed_in_the_middle_and_resumed_ends_in_the_weights_of_an_unbroken_one(tmp_path):
    script = f"""
        import signal, sys
        import torch
        torch.set_num_threads({torch.get_num_threads()})
        sys.path.insert(0, {str(ROOT)!r})
        from tests.training.test_resume import fit_small
        fit_small({str(tmp_path / "killed")!r}, signal_at=19, number=signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    _, description = read_tensors(tmp_path / "killed" / CHECKPOINT)
    assert description["progress"]["step"] == 15
    assert_same(fit_small(tmp_path / "whole"), fit_small(tmp_path / "killed", resume=True))


@pytest.mark.long
def test_ctrl_c_leaves_a_checkpoint_to_resume_from(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="after step 12"):
        fit_small(tmp_path / "stopped", signal_at=13)
    _, description = read_tensors(tmp_path / "stopped" / CHECKPOINT)
    assert description["progress"]["step"] == 12
    assert_same(fit_small(tmp_path / "whole"), fit_small(tmp_path / "stopped", resume=True))


@pytest.mark.long
def test_resuming_a_finished_run_changes_nothing(tmp_path):
    assert_same(fit_small(tmp_path), fit_small(tmp_path, resume=True))


@pytest.mark.long
@pytest.mark.parametrize("length", [0, 5, 100, 5000])
def test_a_truncated_checkpoint_is_refused_and_left_alone(tmp_path, length):
    fit_small(tmp_path)
    path = tmp_path / CHECKPOINT
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="truncated or damaged"):
        fit_small(tmp_path, resume=True)
    assert path.stat().st_size == length


@pytest.mark.long
def test_only_the_same_run_is_resumed(tmp_path):
    with pytest.raises(ValueError, match="no checkpoint to resume from"):
        fit_small(tmp_path, resume=True)
    fit_small(tmp_path)
    before = (tmp_path / CHECKPOINT).read_bytes()
    with pytest.raises(ValueError, match='other settings: stored {"steps": "30", .* received {"steps": "31", '):
        fit_small(tmp_path, resume=True, settings=FitSettings(steps=31))
    with pytest.raises(ValueError, match="other data: stored"):
        fit_small(tmp_path, resume=True, data=points(seed=9))
    assert (tmp_path / CHECKPOINT).read_bytes() == before


@pytest.mark.long
def test_no_temporary_files_are_left(tmp_path):
    fit_small(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT]
