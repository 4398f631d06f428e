"""The Trainer on two processes follows the curve of one, resumes, and ends both processes by the same error.

One start of two processes serves all of these checks, so they are one test.
"""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.lightning.curves import VALIDATION, Curve, trained

pytestmark = [pytest.mark.long, pytest.mark.all_cases]

SCRIPT = Path(__file__).with_name("two_processes.py")


def apart(curve, other):
    assert [step for step, _ in curve] == [step for step, _ in other]
    return max(abs(a - b) for (_, a), (_, b) in zip(curve, other, strict=True))


def the_curve_is_that_of_one_process(two, one):
    """Batches of 61 rows are shared unevenly, and of 1500 validation events one process has 1024."""
    for found in two:
        assert apart(found["curve"]["train"], one.train) < 1e-9
        assert apart(found["curve"]["validation"], one.validation) < 1e-9
    assert torch.equal(two[0]["curve"]["weights"], two[1]["curve"]["weights"])
    rows = [sum(parts) for parts in zip(two[0]["curve"]["rows"], two[1]["curve"]["rows"], strict=True)]
    assert rows == pytest.approx(one.rows, abs=1e-9)


def a_run_resumes_bit_for_bit_with_the_random_draws_of_each_process(two):
    for found in two:
        assert found["resumed"]["rows"] == found["noisy"]["rows"][7:]
        assert found["resumed"]["train"] == found["noisy"]["train"][7:]
        assert torch.equal(found["resumed"]["weights"], found["noisy"]["weights"])


def a_run_resumes_on_another_number_of_processes(two, one, folder):
    """Of 10 validation events the second process has none."""
    fewer, _ = trained(checkpoint=folder / "two.ckpt")
    assert apart(fewer.train, one.train[7:]) < 1e-9 and fewer.rows == one.rows[7:]
    few_events, _ = trained(checkpoint=folder / "one.ckpt", validation=VALIDATION[:10])
    for found in two:
        assert apart(found["of one"]["train"], one.train[7:]) < 1e-9
        assert apart(found["of one"]["validation"], few_events.validation) < 1e-9


def an_error_in_one_process_ends_both(two):
    assert two[0]["diverged"] == two[1]["diverged"]
    assert "the batch of step 1 holds NaN or infinity" in two[0]["diverged"]
    assert two[0]["same rows"] == two[1]["same rows"]
    assert two[0]["same rows"].startswith("all 2 processes would see the same rows of this DataLoader")


def an_energy_has_other_draws_in_each_process_and_the_same_weights(two):
    assert [len(draws) for draws in two[0]["draws"]] == [4] * 3 and [len(draws) for draws in two[1]["draws"]] == [5] * 3
    assert not torch.allclose(two[0]["draws"][0], two[1]["draws"][0][:4])
    assert torch.equal(two[0]["energy"]["weights"], two[1]["energy"]["weights"])
    assert two[0]["energy"]["train"] == two[1]["energy"]["train"]


def the_layers_of_both_processes_are_set_alike_with_a_loader_of_the_user(two):
    assert torch.equal(two[0]["loader"]["weights"], two[1]["loader"]["weights"])
    assert two[0]["loader"]["train"] == two[1]["loader"]["train"] and len(two[0]["loader"]["train"]) == 3


def test_the_trainer_on_two_processes(tmp_path):
    one, _ = trained(curve=Curve(7, tmp_path / "one.ckpt"))  # step 7 is in the middle of an epoch
    run = subprocess.run([sys.executable, str(SCRIPT), str(tmp_path)], capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr[-4000:]
    two = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    the_curve_is_that_of_one_process(two, one)
    a_run_resumes_bit_for_bit_with_the_random_draws_of_each_process(two)
    a_run_resumes_on_another_number_of_processes(two, one, tmp_path)
    an_error_in_one_process_ends_both(two)
    an_energy_has_other_draws_in_each_process_and_the_same_weights(two)
    the_layers_of_both_processes_are_set_alike_with_a_loader_of_the_user(two)
