"""Importance weights with known answers."""

import math
import re

import arviz
import numpy as np
import pyro.distributions as dist
import pytest
import torch

from pyro_gflows.evaluation import EnergyReport, ImportanceReport, energy_report, importance_report
from pyro_gflows.evaluation.importance import rounding_step
from tests.small_flows import small_flow


def draws(n=5000, seed=0):
    return np.random.default_rng(seed).standard_normal(n)


def far_one(height, n=5000):
    """Log-weights that are nearly alike, but for one of them."""
    logs = 0.1 * draws(n)
    logs[0] = height
    return logs


def some_impossible(n=5000):
    logs = np.random.default_rng(1).exponential(size=n)
    logs[1500:] = -np.inf
    return logs


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
    logs = torch.as_tensor(far_one(8.0))
    report = importance_report(logs, trim=0.99)
    assert report.ess == pytest.approx(float(logs.exp().mean() ** 2 / logs.exp().square().mean()), rel=1e-12)
    assert report.ess < 0.002 and report.trimmed_ess > 0.95
    assert report.pareto_k < 0.7  # one draw is no tail: of 213, 212 look as if all were well
    assert not report.is_reliable and "7.2 effective draws" in str(report)


@pytest.mark.parametrize(
    "logs",
    [
        *(scale * draws() for scale in (1e-3, 0.1, 1.0, 3.0, 30.0, 100.0)),
        *(scale * np.random.default_rng(0).exponential(size=5000) for scale in (0.1, 0.5, 1.0, 30.0, 80.0)),
        *(scale * np.log1p(np.random.default_rng(0).uniform(size=5000)) for scale in (1.0, 5.0)),
        *(draws(n) for n in (46, 50, 51, 100, 224, 225, 226, 1000, 20_000)),
        *(far_one(height) for height in (3.0, 8.0, 26.0, 100.0, 600.0)),
        np.round(draws(), 1),  # ties, at the cut too
        np.where(draws() > 1.9, draws(), 0.0),
        some_impossible(),
        draws() - 1e5,
    ],
)
def test_pareto_k_is_that_of_another_library(logs):
    with np.errstate(over="ignore"):  # its weights on the grid
        expected = float(arviz.psislw(logs.copy())[1])
    assert math.isfinite(expected)
    assert importance_report(torch.as_tensor(logs)).pareto_k == pytest.approx(expected, abs=1e-9, rel=1e-9)


@pytest.mark.parametrize("scale", [10.0, 300.0, 1e4, 1e100])
@pytest.mark.parametrize("offset", [0.0, -1e3, 1e6])
def test_no_scale_of_the_log_weights_rounds_the_tail_away(scale, offset):
    """Log-weights of slope ``scale`` have a Pareto tail of that shape, here up to e^(9 scale)."""
    exponential = torch.distributions.Exponential(torch.tensor(1.0, dtype=torch.float64))
    torch.manual_seed(0)
    logs = scale * exponential.sample((20_000,))
    report = importance_report(logs + offset * scale)
    assert 0.5 * scale < report.pareto_k < 1.5 * scale  # the fit is drawn towards small shapes
    assert not report.is_reliable and "above 0.7" in str(report)
    assert math.isfinite(report.trimmed_ess) and math.isfinite(report.log_mean_weight)


@pytest.mark.parametrize(
    "logs",
    [
        torch.cat([torch.full((1,), 26.0), torch.zeros(4999)]),
        torch.cat([torch.full((9,), 700.0), torch.full((4991,), -30.0)]),
        torch.cat([torch.linspace(0, 1, 9), torch.full((4991,), -math.inf)]),
        torch.cat([torch.zeros(1), torch.full((99,), -math.inf)]),
        torch.as_tensor(far_one(26.0)),
        torch.as_tensor(far_one(1e4)).float(),
        torch.as_tensor(548 * draws()),
    ],
)
def test_fewer_than_ten_draws_that_carry_everything_are_no_equal_weights(logs):
    report = importance_report(logs)
    assert report.ess * report.draws < 10
    assert report.pareto_k > 0.7 and not report.is_reliable and "WARNING" in str(report)


@pytest.mark.parametrize("noise", [0.0, 1e-15, 1e-11])
@pytest.mark.parametrize(("dtype", "offset"), [(torch.float64, -37.0), (torch.float64, 1e4), (torch.float32, 1e4)])
def test_weights_that_are_alike_to_rounding_are_reliable(noise, dtype, offset):
    logs = (offset + noise * torch.as_tensor(draws()).sinh()).to(dtype)
    report = importance_report(logs)
    assert report.pareto_k == 0.0 and report.is_reliable and "Pareto k 0.00;" in str(report)


@pytest.mark.parametrize(("steps", "k"), [(1e-4, 0.0), (1.0, math.inf)])
def test_a_few_draws_above_equal_ones_matter_by_how_far_they_are_above(steps, k):
    logs = torch.zeros(5000)
    logs[:5] = steps
    assert importance_report(logs).pareto_k == k


def test_two_values_that_are_both_frequent_are_no_tail():
    report = importance_report(torch.tensor([0.0, 1.0]).repeat(2500))
    assert report.pareto_k == 0.0 and report.is_reliable


def test_log_weights_that_their_dtype_cannot_tell_apart_are_not_believed():
    logs = torch.as_tensor(draws())
    fine, coarse = importance_report(logs.float() + 1e4), importance_report(logs.float() + 1e8)
    assert fine.is_reliable and fine.resolution == 2**-10
    assert coarse.resolution == 8.0 and not coarse.is_reliable
    assert "rounded to 8 nats" in str(coarse) and "float64" in str(coarse)
    assert importance_report(logs + 1e8).is_reliable
    assert importance_report(logs.to(torch.bfloat16)).resolution == 2**-6
    assert not importance_report(logs, resolution=0.5).is_reliable
    assert importance_report(logs, resolution=0.0).resolution == 0.0


def test_an_energy_report_knows_the_rounding_of_both_densities():
    flow = small_flow().float()
    with_constant: EnergyReport = energy_report(flow, lambda x: flow(x) + 1e8, draws=500)
    assert with_constant.importance.resolution == 8.0
    assert not with_constant.importance.is_reliable and "rounded to 8 nats" in str(with_constant)
    assert energy_report(flow, lambda x: flow(x) + 10, draws=500).importance.is_reliable
    one_far = energy_report(flow, lambda x: flow(x) + 26.0 * (x[..., 0] == x[..., 0].max()), draws=500)
    assert "WARNING" in str(one_far) and not one_far.importance.is_reliable


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


@pytest.mark.parametrize("trim", [0.2, 0.5, 0.75, 0.9, 1.0])
def test_every_figure_is_that_of_its_formula(trim):
    """On ten weights: those above the quantile, which is one of them, are clipped to it."""
    weights = np.random.default_rng(2).lognormal(sigma=1.5, size=10)
    report = importance_report(torch.as_tensor(np.log(weights) + 3.0), trim=trim)
    clipped = np.minimum(weights, np.sort(weights)[math.ceil(trim * 10) - 1])
    assert report.ess == pytest.approx(weights.sum() ** 2 / (10 * (weights**2).sum()), rel=1e-12)
    assert report.trimmed_ess == pytest.approx(clipped.sum() ** 2 / (10 * (clipped**2).sum()), rel=1e-12)
    assert report.log_mean_weight == pytest.approx(math.log(weights.mean()) + 3.0, rel=1e-12)
    assert report.standard_error == pytest.approx(weights.std(ddof=1) / weights.mean() / math.sqrt(10), rel=1e-12)


def test_a_quantile_of_weight_0_leaves_nothing_of_the_trimmed_size():
    logs = torch.tensor([0.0, *[-math.inf] * 3], dtype=torch.float64)
    assert importance_report(logs, trim=0.75).trimmed_ess == 0.0
    assert importance_report(logs, trim=0.76).trimmed_ess == 0.25
    assert math.isnan(importance_report(logs[:1]).standard_error)


@pytest.mark.parametrize(
    ("ess", "k", "resolution", "doubt"),
    [
        (0.0101, 0.7, 0.1, None),
        (0.0099, 0.7, 0.1, "9.9 effective draws"),
        (0.0101, 0.701, 0.1, "above 0.7"),
        (0.0101, 0.7, 0.11, "rounded to 0.11 nats"),
        (0.0101, math.inf, 0.0, "k inf .*above 0.7"),
        (0.0001, math.nan, 0.0, "k unknown .*too few draws"),
        (math.nan, 0.1, 0.0, "nan effective draws"),
    ],
)
def test_what_a_report_doubts(ess, k, resolution, doubt):
    report = ImportanceReport(1000, ess, ess, k, 0.0, 0.1, resolution)
    assert report.is_reliable == (doubt is None) == ("WARNING" not in str(report))
    assert doubt is None or re.search(doubt, str(report))


def test_a_tail_needs_ten_draws():
    """Of n draws, a fifth: 46 have a tail of 10, and 45 one of 9."""
    logs = torch.as_tensor(draws(46))
    assert math.isfinite(importance_report(logs).pareto_k)
    assert math.isnan(importance_report(logs[:45]).pareto_k)
    assert "too few draws" in str(importance_report(logs[:45])) and "unknown" in str(importance_report(logs[:45]))


def test_ten_draws_above_equal_ones_are_a_tail_and_nine_are_none():
    logs = torch.zeros(5000, dtype=torch.float64)
    for count in (9, 10):
        logs[:count] = torch.linspace(0.5, 1.0, count, dtype=torch.float64)
        assert math.isinf(importance_report(logs).pareto_k) == (count < 10)


@pytest.mark.parametrize(("gap", "k"), [(0.9e-3, 0.0), (1.1e-3, math.inf)])
def test_how_far_above_is_negligible(gap, k):
    logs = torch.zeros(5000, dtype=torch.float64)
    logs[0] = gap
    assert importance_report(logs).pareto_k == k


def test_the_step_of_rounding_is_the_distance_to_the_next_number():
    for largest in (1.0, 1.5, 2.0, 1023.9, 1e-3, 1e30):
        for dtype in (torch.float32, torch.float64):
            values = torch.tensor([0.0, -largest, 0.5 * largest, -math.inf], dtype=dtype)
            magnitude = values.abs()[1]
            following = torch.nextafter(magnitude, torch.tensor(math.inf, dtype=dtype))
            assert rounding_step(values) == float(following.double() - magnitude.double())
    assert rounding_step(torch.zeros(3)) == rounding_step(torch.full((2,), -math.inf)) == 0.0


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
        (torch.zeros(3), {"resolution": -1.0}, ValueError, "resolution of 0 nats or more, got -1.0"),
    ],
)
def test_bad_weights_are_refused(weights, options, error, message):
    with pytest.raises(error, match=message):
        importance_report(weights, **options)
