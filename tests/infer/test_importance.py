"""Importance weights with known answers."""

import math

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows.infer import importance_report


def test_equal_weights_are_perfect_whatever_their_constant():
    report = importance_report(torch.full((500,), -37.0, dtype=torch.float64))
    assert report.ess == report.trimmed_ess == pytest.approx(1.0, abs=1e-12)
    assert report.pareto_k == 0.0 and report.is_reliable
    assert report.log_mean_weight == pytest.approx(-37.0, abs=1e-12) and report.standard_error == 0.0


def test_ess_of_weights_worked_out_by_hand():
    report = importance_report(torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64).log())
    assert report.ess == pytest.approx(36 / (3 * 14), abs=1e-12)
    assert report.log_mean_weight == pytest.approx(math.log(2.0), abs=1e-12)
    assert math.isnan(report.pareto_k) and not report.is_reliable


def test_a_gaussian_proposal_has_the_ess_of_the_formula():
    """N(0, 1) for N(m, 1): log w is normal with variance m^2, so that the ESS is exp(-m^2)."""
    torch.manual_seed(0)
    z = torch.randn(200_000, dtype=torch.float64)
    report = importance_report(0.5 * z - 0.125)
    assert report.ess == pytest.approx(math.exp(-0.25), abs=0.01)
    assert abs(report.log_mean_weight) < 4 * report.standard_error
    assert report.pareto_k < 0.5 and "WARNING" not in str(report)


def test_one_huge_weight_is_trimmed_and_reported():
    torch.manual_seed(0)
    logs = 0.1 * torch.randn(5000, dtype=torch.float64)
    logs[0] = 8.0
    report = importance_report(logs, trim=0.99)
    assert report.ess < 0.5 and report.trimmed_ess > 0.95


@pytest.mark.parametrize("shape", [0.2, 0.9, 1.5])
def test_pareto_k_is_the_tail_index(shape):
    torch.manual_seed(0)
    weights = dist.Pareto(1.0, torch.tensor(1 / shape, dtype=torch.float64)).sample((100_000,))
    report = importance_report(weights.log())
    assert report.pareto_k == pytest.approx(shape, abs=0.15)
    assert ("WARNING" in str(report)) == (shape > 0.7)


def test_draws_outside_the_targets_support_count_as_zero():
    logs = torch.zeros(100)
    logs[:75] = -math.inf
    assert importance_report(logs).ess == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("weights", "options", "error", "message"),
    [
        ([0.0], {}, TypeError, "floating-point tensor"),
        (torch.zeros(3, dtype=torch.int64), {}, TypeError, "floating-point tensor"),
        (torch.zeros(3, 2), {}, ValueError, r"shape \(n,\), got \(3, 2\)"),
        (torch.zeros(0), {}, ValueError, r"got \(0,\)"),
        (torch.tensor([0.0, math.nan]), {}, ValueError, "NaN"),
        (torch.tensor([0.0, math.inf]), {}, ValueError, "inf"),
        (torch.full((3,), -math.inf), {}, ValueError, "no draw has any density"),
        (torch.zeros(3), {"trim": 0.0}, ValueError, "trim"),
    ],
)
def test_what_is_no_weights_is_refused(weights, options, error, message):
    with pytest.raises(error, match=message):
        importance_report(weights, **options)
