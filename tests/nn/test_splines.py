"""Slope-bounded splines against numerical quadrature of their slope."""

import numpy as np
import pytest
import scipy.integrate
import torch

from pyro_gflows.nn import SlopeSplines


def bank(**options):
    splines = SlopeSplines(3, knots=5, limit=2.0, **options).double()
    with torch.no_grad():
        splines.theta.normal_(generator=torch.Generator().manual_seed(0)).mul_(2)
    return splines


def slope_by_hand(splines, row, t):
    """Linear interpolation of tanh theta, constant outside."""
    theta = splines.theta[row].detach()
    if splines.odd:
        theta = torch.cat([theta.flip(0), theta[1:]])
    knots = np.linspace(-splines.limit, splines.limit, 2 * splines.knots - 1)
    return np.interp(t, knots, np.tanh(theta.numpy()))


@pytest.fixture(params=[False, True], ids=["free", "odd"])
def splines(request):
    return bank(odd=request.param)


def test_value_is_the_integral_of_the_slope(splines):
    knots = np.linspace(-splines.limit, splines.limit, 2 * splines.knots - 1)
    for row in range(3):
        for t in [-5.3, -2.0, -1.1, -0.5, -1e-3, 0.0, 0.2, 0.5, 1.99, 2.0, 7.0]:
            inside = knots[(knots > min(t, 0)) & (knots < max(t, 0))]
            expected, _ = scipy.integrate.quad(
                lambda s, row=row: slope_by_hand(splines, row, s), 0, t, points=inside if len(inside) else None
            )
            value, slope = splines(torch.tensor(t, dtype=torch.float64), row)
            assert value.item() == pytest.approx(expected, abs=1e-10)
            assert slope.item() == pytest.approx(float(slope_by_hand(splines, row, t)), abs=1e-12)


def test_slope_is_autograds_and_bounded(splines):
    t = torch.linspace(-4, 4, 401, dtype=torch.float64).requires_grad_()
    for row in range(3):
        value, slope = splines(t, row)
        (expected,) = torch.autograd.grad(value.sum(), t)
        torch.testing.assert_close(slope, expected, rtol=0, atol=1e-11)
        assert slope.abs().max() < 1


def test_slope_stays_bounded_at_extreme_weights(splines):
    t = torch.linspace(-4, 4, 401, dtype=torch.float64)
    with torch.no_grad():
        splines.theta.copy_(20.0 * torch.randn_like(splines.theta).sign())
    assert splines(t, 1)[1].abs().max() <= 1


def test_odd_functions_are_odd_and_all_vanish_at_0(splines):
    t = torch.linspace(0, 4, 101, dtype=torch.float64)
    assert splines(torch.zeros(1, dtype=torch.float64), 2)[0].abs().max() < 1e-15
    if splines.odd:
        torch.testing.assert_close(splines(-t, 1)[0], -splines(t, 1)[0], rtol=0, atol=1e-14)


def test_rows_broadcast(splines):
    t = torch.randn(4, 3, dtype=torch.float64)
    value, _ = splines(t, torch.arange(3))
    for row in range(3):
        torch.testing.assert_close(value[:, row], splines(t[:, row], row)[0])


def test_gradients_reach_points_and_weights(splines):
    t = torch.randn(6, dtype=torch.float64, requires_grad=True)
    row = torch.tensor([0, 1, 2, 0, 1, 2])

    def both(t, theta):
        return torch.func.functional_call(splines, {"theta": theta}, (t, row))

    assert torch.autograd.gradcheck(both, (t, splines.theta.detach().clone().requires_grad_()))


def test_far_points_and_nan_are_told_apart(splines):
    t = torch.tensor([1e30, -1e30, float("nan")], dtype=torch.float64)
    value, slope = splines(t, 0)
    assert value[:2].isfinite().all()
    assert slope[0].item() == pytest.approx(slope_by_hand(splines, 0, 1e30))
    assert value[2].isnan()


def test_start_0_is_the_zero_function():
    value, slope = SlopeSplines(2, start=0.0)(torch.linspace(-3, 3, 7), 1)
    assert value.abs().max() == slope.abs().max() == 0


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 1, "knots": 1}, {"count": 1, "limit": 0.0}])
def test_bad_sizes_say_what_was_expected(options):
    with pytest.raises(ValueError, match="count >= 1, knots >= 2, limit > 0"):
        SlopeSplines(options.pop("count"), **options)
