"""The quantile of a truncated normal that a gap to a wall is, and the inverse of log Phi behind it."""

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from pyro_gflows.numerics.log_normal_cdf import log_ndtr, log_ndtri, mills_ratio
from pyro_gflows.numerics.truncated_gap import coordinate_of_gap, gap_log_slope, gap_of_coordinate

RATIOS = [-8.0, -1.0, 0.0, 0.1, 1.0, 5.0, 10.0, 20.0]
DTYPES = {"float64": torch.float64, "float32": torch.float32}


def ratio_of(value, dtype=torch.float64):
    return torch.tensor(value, dtype=dtype)


# -- the inverse of log Phi ----------
@pytest.mark.parametrize("dtype", DTYPES)
def test_log_ndtr_is_that_of_scipy(dtype):
    x = torch.linspace(-60, 13, 500, dtype=torch.float64).to(DTYPES[dtype])
    expected = torch.from_numpy(scipy.special.log_ndtr(x.double().numpy()))
    error = (log_ndtr(x).double() - expected).abs() / expected.abs().clamp_min(1e-30)
    assert error.max() < (1e-12 if dtype == "float64" else 2e-5)


def test_log_ndtri_inverts_log_ndtr_in_both_tails():
    y = torch.cat([-torch.logspace(-300, 12, 500, dtype=torch.float64), torch.tensor([0.5]).double().log()])
    assert torch.allclose(log_ndtr(log_ndtri(y)), y, rtol=1e-12, atol=0)
    expected = torch.from_numpy(scipy.special.ndtri_exp(y.numpy()))
    assert torch.allclose(log_ndtri(y), expected, rtol=1e-11, atol=1e-11)


def test_log_ndtri_in_single_precision():
    y = -torch.logspace(-30, 12, 500)
    expected = torch.from_numpy(scipy.special.ndtri_exp(y.double().numpy()))
    assert torch.allclose(log_ndtri(y).double(), expected, rtol=2e-6, atol=2e-6)


def test_the_ends_of_log_ndtri():
    found = log_ndtri(torch.tensor([0.0, -torch.inf, 0.1]))
    assert found[0] == torch.inf and found[1] == -torch.inf and found[2].isnan()


def test_derivatives_of_log_ndtri():
    y = torch.tensor([-300.0, -60.5, -20.0, -1.0, -0.7, -0.1, -1e-3], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(log_ndtri, y, eps=1e-7) and torch.autograd.gradgradcheck(log_ndtri, y, eps=1e-7)
    (slope,) = torch.autograd.grad(log_ndtri(y).sum(), y)
    assert torch.equal(slope, mills_ratio(log_ndtri(y)))


# -- gaps ----------
@pytest.mark.parametrize("ratio", RATIOS)
def test_map_and_inverse_undo_each_other(ratio):
    u = torch.linspace(-18, 30, 2001, dtype=torch.float64)
    gap = gap_of_coordinate(u, ratio_of(ratio))
    assert bool((gap.diff() > 0).all()) and bool((gap > 0).all())
    assert torch.allclose(coordinate_of_gap(gap, ratio_of(ratio)), u, rtol=0, atol=1e-11)
    gap = torch.logspace(-90, 3, 2001, dtype=torch.float64)
    again = gap_of_coordinate(coordinate_of_gap(gap, ratio_of(ratio)), ratio_of(ratio))
    assert torch.allclose(again, gap, rtol=1e-10, atol=0)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_gap_of_a_standard_normal_has_the_truncated_normal_distribution(ratio):
    gap = torch.cat(
        [torch.logspace(-12, 0, 50, dtype=torch.float64), torch.linspace(0.01, abs(ratio) + 12, 200).double()]
    )
    u = coordinate_of_gap(gap, ratio_of(ratio))
    log_density = -0.5 * u.square() - 0.5 * np.log(2 * np.pi) - gap_log_slope(u, gap, ratio_of(ratio))
    expected = scipy.stats.truncnorm.logpdf(gap.numpy(), -ratio, np.inf, loc=ratio)
    assert torch.allclose(log_density, torch.from_numpy(expected), rtol=1e-10, atol=1e-10)
    below = gap[u < 0]
    cdf = scipy.stats.truncnorm.logcdf(below.numpy(), -ratio, np.inf, loc=ratio)
    reached = log_ndtr(u[u < 0]).numpy()
    close = below.numpy() > 1e-3  # nearer to the wall scipy's difference of two probabilities has no digits left
    assert np.allclose(reached[close], cdf[close], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_density_of_any_coordinate_integrates_to_one(ratio):
    # a density of u other than the standard normal, with the same lower tail: a skewed mixture
    nodes, weights = np.polynomial.legendre.leggauss(40)
    ends = np.linspace(0.0, max(ratio, 0.0) + (30.0 / -ratio if ratio < -1 else 12.0), 41)
    middle, half = 0.5 * (ends[1:] + ends[:-1]), 0.5 * np.diff(ends)
    gap = torch.from_numpy(middle[:, None] + half[:, None] * nodes)
    u = coordinate_of_gap(gap, ratio_of(ratio))
    density = 0.5 * torch.exp(-0.5 * u.square()) + 0.5 * torch.exp(-0.5 * (u - 1.0).square())
    slope = gap_log_slope(u, gap, ratio_of(ratio)).exp()
    total = (density / np.sqrt(2 * np.pi) / slope * torch.from_numpy(half[:, None] * weights)).sum()
    assert float(total) == pytest.approx(1.0, abs=1e-6)


@pytest.mark.parametrize("ratio", RATIOS)
def test_the_slope_is_the_derivative(ratio):
    u = torch.linspace(-9, 12, 101, dtype=torch.float64, requires_grad=True)
    gap = gap_of_coordinate(u, ratio_of(ratio))
    (slope,) = torch.autograd.grad(gap.sum(), u)
    step = 1e-5
    wide = gap_of_coordinate(u + step, ratio_of(ratio)) - gap_of_coordinate(u - step, ratio_of(ratio))
    assert torch.allclose(slope, wide / (2 * step), rtol=1e-7, atol=1e-10 * float(slope.max()))
    assert torch.allclose(gap_log_slope(u, gap, ratio_of(ratio)), slope.log(), rtol=1e-10, atol=1e-10)


def test_far_from_the_wall_the_gap_is_the_mean_plus_the_coordinate():
    u = torch.linspace(-5, 30, 200, dtype=torch.float64)
    assert torch.allclose(gap_of_coordinate(u, ratio_of(20.0)), 20.0 + u, rtol=1e-14, atol=0)


def test_first_and_second_derivatives_of_both_maps():
    generator = torch.Generator().manual_seed(0)
    u = 3 * torch.randn(30, dtype=torch.float64, generator=generator)
    ratio = 12 * torch.rand(30, dtype=torch.float64, generator=generator) - 4
    gap = 0.05 + 8 * torch.rand(30, dtype=torch.float64, generator=generator)
    for function, at in [(gap_of_coordinate, u), (coordinate_of_gap, gap)]:
        inputs = (at.requires_grad_(), ratio.requires_grad_())
        assert torch.autograd.gradcheck(function, inputs) and torch.autograd.gradgradcheck(function, inputs)


def test_both_maps_under_vmap_and_jvp():
    u, ratio = torch.tensor([-4.0, 0.0, 2.0]).double(), ratio_of(1.5)
    gap = gap_of_coordinate(u, ratio)
    by_rows = torch.func.vmap(torch.func.grad(lambda each: gap_of_coordinate(each, ratio)))(u)
    assert torch.allclose(by_rows, gap_log_slope(u, gap, ratio).exp())
    forward = torch.func.jacfwd(lambda each: gap_of_coordinate(each, ratio))(u)
    assert torch.allclose(forward, by_rows.diag())
    back = torch.func.vmap(torch.func.jacfwd(lambda each: coordinate_of_gap(each, ratio)))(gap)
    assert torch.allclose(back, 1 / by_rows)


@pytest.mark.parametrize("ratio", [0.05, *RATIOS, 50.0])
def test_single_precision_gives_no_nan_even_where_keys_tie(ratio):
    gap = torch.cat([torch.zeros(1), torch.logspace(-45, 12, 400)]).requires_grad_()
    a = ratio_of(ratio, torch.float32).requires_grad_()
    u = coordinate_of_gap(gap, a)
    log_density = -0.5 * u.square() - gap_log_slope(u, gap.clamp_min(1e-18), a)
    assert u.isfinite().all() and log_density.isfinite().all()
    for gradient in torch.autograd.grad(log_density.sum(), [gap, a]):
        assert not gradient.isnan().any()
    u = torch.linspace(-30, 30, 500, requires_grad=True)
    gap = gap_of_coordinate(u, a)
    assert gap.isfinite().all() and bool((gap >= 0).all())
    for gradient in torch.autograd.grad(gap.sum(), [u, a]):
        assert gradient.isfinite().all()


@pytest.mark.parametrize("ratio", RATIOS)
def test_single_precision_agrees_with_double(ratio):
    u = torch.linspace(-6, 12, 300)
    exact = gap_of_coordinate(u.double(), ratio_of(ratio))
    assert torch.allclose(gap_of_coordinate(u, ratio_of(ratio, torch.float32)).double(), exact, rtol=3e-4)
    back = coordinate_of_gap(exact.float(), ratio_of(ratio, torch.float32))
    assert torch.allclose(back, u, rtol=0, atol=2e-5)
