"""Figures of a fit from samples of its target: forward ESS, gap, the known log Z beside the estimate, and the floor."""

import math

import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantNormal, ParticleAction
from pyro_gflows.evaluation import energy_report, forward_ess, importance_report
from pyro_gflows.targets import ParticleEnergy
from pyro_gflows.testing import assert_above_floor
from pyro_gflows.transforms import GActNorm, InCoordinates
from tests.small_flows import points, small_flow

ACTION = ParticleAction(3, 2)
DIMENSION = 4


def gaussian(scale=1.0):
    """U = |x|^2 / 2 s^2 at temperature 1: normal in four dimensions."""
    target = ParticleEnergy(ACTION, lambda x: x.square().sum((-2, -1)) / (2 * scale**2))
    target.log_z = DIMENSION / 2 * math.log(2 * math.pi * scale**2)
    target.floor = target.log_z + DIMENSION / 2
    return target


def standard_flow():
    return EquivariantFlow(InvariantNormal(ACTION), [InCoordinates(GActNorm(ACTION.coordinates), ACTION)]).double()


def samples(count, scale=1.0):
    x = torch.randn(count, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return scale * ACTION.space.project(x)


def test_a_perfect_fit_of_particles_has_all_figures():
    target, x = gaussian(), samples(2000)
    report = energy_report(standard_flow(), target, draws=1000, samples=x)
    assert report.ess == pytest.approx(1, abs=1e-9) and report.forward_ess == pytest.approx(1, abs=1e-9)
    assert report.log_normalizer == pytest.approx(target.log_z, abs=1e-9)
    assert report.known_log_normalizer == target.log_z and f"(exactly {target.log_z:.4f})" in str(report)
    assert report.gap == pytest.approx(0, abs=1e-9) and report.gap_error < 1e-9 and not report.is_below_floor
    assert_above_floor(report.forward_nll, target.floor, error=report.forward_nll_error)


def test_the_gap_and_both_ess_of_a_wider_normal_are_those_of_the_formula():
    s = 1.2
    target, x = gaussian(s), samples(100_000, s)
    report = energy_report(standard_flow(), target, draws=100_000, samples=x)
    gap = DIMENSION * (s**2 / 2 - 0.5 - math.log(s))  # KL of N(0, s^2) from N(0, 1), for each coordinate
    ess = ((2 - s**2) ** 0.5 / s * s**2) ** DIMENSION  # 1 / the integral of p^2 / q
    assert abs(report.gap - gap) < 5 * report.gap_error and report.gap_error < 0.005
    assert report.ess == pytest.approx(ess, abs=0.02) and report.forward_ess == pytest.approx(ess, abs=0.02)
    assert "gap" in str(report) and "forward ESS" in str(report) and "WARNING" not in str(report)


def test_the_forward_ess_sees_a_mode_that_the_draws_do_not():
    logs = torch.zeros(1000, dtype=torch.float64)
    logs[:100] = 30.0  # a tenth of the samples, where the fit has no density
    assert forward_ess(logs) < 1e-10
    assert forward_ess(logs + 1e4) == pytest.approx(forward_ess(logs), rel=1e-9)
    assert forward_ess(torch.randn(500).exp().log()) < 1


def test_without_samples_or_without_log_z_there_is_no_gap():
    x = samples(50)
    assert energy_report(standard_flow(), gaussian(), draws=50).gap is None
    report = energy_report(standard_flow(), gaussian().energy, draws=50, samples=x)
    assert report.gap is None and report.known_log_normalizer is None and report.forward_ess is not None
    plain = energy_report(small_flow(), lambda x: -x.square().sum(-1), draws=50, samples=points(50))
    assert plain.gap is None and "exactly" not in str(plain)


def test_figures_below_the_floor_are_called_wrong():
    target, x = gaussian(), samples(2000)
    target.log_z += 0.5  # a wrong constant, as of a log-det that is too high
    report = energy_report(standard_flow(), target, draws=100, samples=x)
    assert report.is_below_floor and "WARNING: below 0" in str(report)
    with pytest.raises(AssertionError, match=r"NLL 6.9 .* below the entropy 7.13"):
        assert_above_floor(6.9, 7.13, error=0.02, floor_error=0.004)
    assert_above_floor(7.1, 7.13, error=0.02, floor_error=0.004)
    assert_above_floor(7.5, 7.13, error=0.02)
    with pytest.raises(ValueError, match="standard error"):
        assert_above_floor(7.5, 7.13, error=-1.0)
    with pytest.raises(AssertionError):
        assert_above_floor(math.nan, 7.13, error=0.02)


def test_the_known_value_stands_beside_the_estimate():
    report = importance_report(torch.zeros(1000), known=0.01)
    assert report.known == 0.01 and str(report).endswith("log mean weight 0.0000 +- 0.0000 (exactly 0.0100)")
