"""Circular splines in plain Pyro: C1 on the circle, once around it, exact inverse and log-det, stated bounds."""

import math
import pickle

import pyro
import pyro.distributions as dist
import pytest
import torch

from pyro_gflows.nn import BoundedKnots, FreeKnots
from pyro_gflows.nn.circular_knots import circular_pieces
from pyro_gflows.transforms import CircularSpline

CIRCLE = 2 * math.pi


def spline(*, shape=(), bins=8, spread=2.0, seed=0, knots=None):
    layer = CircularSpline(shape, bins=bins, knots=knots).double()
    generator = torch.Generator().manual_seed(seed)
    for parameter in layer.parameters():
        parameter.data = spread * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return layer


def away(angle):
    """The distance of an angle from 0 on the circle."""
    return (angle - CIRCLE * (angle / CIRCLE).round()).abs().max()


def grid(count=400):
    return torch.linspace(-1.5 * CIRCLE, 1.5 * CIRCLE, count, dtype=torch.float64)


@pytest.mark.parametrize("knots", [None, BoundedKnots(smallest=0.5, secant=4.0, slope=1.5), FreeKnots()])
@pytest.mark.parametrize("bins", [2, 3, 8])
@torch.no_grad()
def test_it_is_inverted_and_goes_once_around(bins, knots):
    layer, x = spline(bins=bins, knots=knots), grid()
    y = layer(x)
    assert ((y >= 0) & (y < CIRCLE)).all()
    assert away(layer.inv(y) - x) < 1e-9 and away(layer(layer.inv(x)) - x) < 1e-9
    one_circle = torch.linspace(0, CIRCLE, 2001, dtype=torch.float64)
    steps = layer(one_circle).diff().remainder(CIRCLE)
    assert (steps > 0).all() and steps.sum() == pytest.approx(CIRCLE, abs=1e-9)


@pytest.mark.parametrize("bins", [2, 3, 8])
def test_the_log_det_is_that_of_autograd(bins):
    layer, x = spline(bins=bins), grid(50).requires_grad_()
    y = layer(x)
    (slope,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(layer.log_abs_det_jacobian(x, y), slope.log(), rtol=0, atol=1e-9)
    back = y.detach().requires_grad_()
    (slope,) = torch.autograd.grad(layer.inv(back).sum(), back)
    torch.testing.assert_close(layer.inv.log_abs_det_jacobian(back, x), slope.log(), rtol=0, atol=1e-9)


@pytest.mark.parametrize("knots", [BoundedKnots(), FreeKnots()])
@torch.no_grad()
def test_value_and_slope_are_continuous_at_the_seam_and_at_every_knot(knots):
    layer = spline(bins=6, knots=knots, spread=0.7)
    widths, _, slopes = circular_pieces(layer.knots, layer.widths, layer.heights, layer.slopes)
    at = CIRCLE * torch.cat([widths.new_zeros(1), widths.cumsum(-1)]) - math.pi  # the last one is the seam again
    for sign in (-1, 1):
        beside = at + sign * 1e-9
        assert away(layer(beside) - layer(at)) < 1e-5
        torch.testing.assert_close(layer.log_abs_det_jacobian(beside, beside).exp()[:-1], slopes, rtol=1e-4, atol=1e-6)
    left, right = (layer.log_abs_det_jacobian(at[:1] + sign * 1e-9, at[:1]) for sign in (-1, 1))
    torch.testing.assert_close(left, right, rtol=0, atol=1e-5)
    assert (slopes[0] - slopes[1]).abs() > 1e-2


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_no_piece_and_no_slope_is_below_the_stated_bound(spread):
    knots, bins = BoundedKnots(), 8
    layer = spline(shape=(500,), bins=bins, spread=spread)
    widths, heights, slopes = circular_pieces(layer.knots, layer.widths, layer.heights, layer.slopes)
    for shares in (widths, heights):
        torch.testing.assert_close(shares.sum(-1), torch.ones(500).double())
    assert widths.min() >= knots.smallest / bins
    secants = heights / widths
    assert (secants.amax(-1) / secants.amin(-1)).max() <= knots.secant * (1 + 1e-9)
    around = torch.cat([secants[:, -1:], secants], -1)
    ratio = slopes * (1 / around[:, :-1] + 1 / around[:, 1:]) / 2
    assert ratio.min() >= 1 / knots.slope - 1e-9 and ratio.max() <= knots.slope + 1e-9
    log_slope = layer.log_abs_det_jacobian(grid(300)[:, None].expand(-1, 500), None)
    assert log_slope.min() > -math.log((knots.slope + 0.5) * knots.secant)
    assert log_slope.max() < math.log(2 * knots.slope * knots.secant)


@pytest.mark.parametrize("spread", [0.3, 3.0, 30.0])
@torch.no_grad()
def test_single_precision(spread):
    layer = spline(shape=(2000,), spread=spread).float()
    x = CIRCLE * torch.rand(10, 2000, generator=torch.Generator().manual_seed(1))
    assert away(layer.inv(layer(x)) - x) < 1e-3 and away(layer(layer.inv(x)) - x) < 1e-3


def test_it_starts_as_the_identity_and_wraps():
    layer = CircularSpline(bins=5).double()
    x = torch.tensor([-1.0, 0.0, 3.0, 7.0, -1e-20]).double()
    assert away(layer(x) - x) < 1e-12 and (layer(x) < CIRCLE).all()
    assert layer.log_abs_det_jacobian(x, x).abs().max() < 1e-12


@torch.no_grad()
def test_with_a_von_mises_base_it_is_a_density_of_angles():
    layer = spline(shape=(2,), spread=0.7)
    base = dist.VonMises(torch.tensor([0.5, 4.0]).double(), torch.tensor([1.0, 3.0]).double()).to_event(1)
    density = dist.TransformedDistribution(base, [layer])
    draws = density.sample((20_000,))
    assert draws.shape == (20_000, 2) and ((draws >= 0) & (draws < CIRCLE)).all()
    points = CIRCLE * torch.arange(200, dtype=torch.float64) / 200
    on_grid = torch.cartesian_prod(points, points)
    mass = density.log_prob(on_grid).exp()
    assert mass.sum() * (CIRCLE / 200) ** 2 == pytest.approx(1, abs=1e-3)
    torch.testing.assert_close(density.log_prob(on_grid + CIRCLE), density.log_prob(on_grid), rtol=0, atol=1e-9)
    expected = (mass[:, None] * torch.cat([on_grid.cos(), on_grid.sin()], -1)).sum(0) / mass.sum()
    received = torch.cat([draws.cos(), draws.sin()], -1).mean(0)
    torch.testing.assert_close(received, expected, rtol=0, atol=0.03)


def test_svi_fits_it():
    pyro.clear_param_store()
    target = dist.VonMises(torch.tensor(2.0), torch.tensor(4.0))
    layer = CircularSpline(bins=8)

    def model(angles):
        pyro.module("layer", layer)
        base = dist.Uniform(torch.tensor(0.0), torch.tensor(CIRCLE), validate_args=False)
        with pyro.plate("data", len(angles)):
            pyro.sample("angle", dist.TransformedDistribution(base, [layer]), obs=angles)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        angles = target.sample((500,))
        svi = pyro.infer.SVI(model, lambda _: None, pyro.optim.Adam({"lr": 0.1}), pyro.infer.Trace_ELBO())
        losses = [svi.step(angles) for _ in range(200)]
    floor = -target.log_prob(angles).sum().item()
    assert losses[0] == pytest.approx(500 * math.log(CIRCLE), rel=1e-4)
    assert losses[-1] < floor + 0.02 * 500


def test_it_is_pickled_and_loaded():
    layer = spline(shape=(3,))
    again = pickle.loads(pickle.dumps(layer))
    x = torch.ones(3, dtype=torch.float64)
    assert torch.equal(again(x), layer(x))
    fresh = CircularSpline((3,)).double()
    fresh.load_state_dict(layer.state_dict())
    assert torch.equal(fresh(x), layer(x))
    assert "shape=(3,), bins=8" in repr(layer)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"bins": 1}, "from 2 to 998 bins, got shape \\(\\) and 1 bins"),
        ({"bins": 999}, "got shape \\(\\) and 999 bins"),
        ({"shape": (0,)}, "expected positive sizes"),
    ],
)
def test_bad_sizes_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        CircularSpline(**arguments)


def test_angles_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"expected angles of shape \(\.\.\., 2\), got \(5, 3\)"):
        CircularSpline((2,))(torch.zeros(5, 3))
