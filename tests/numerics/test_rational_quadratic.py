"""Pieces of rational-quadratic splines in single precision, against the same pieces in double precision."""

import pytest
import torch

from pyro_gflows.numerics import rational_quadratic

COUNT = 100_000


def pieces(spread, *, seed=0):
    """Random pieces in float32: points, values, corners, sizes, and slopes of the given spread of their logarithms."""
    generator = torch.Generator().manual_seed(seed)

    def normal(scale=1.0):
        return scale * torch.randn(COUNT, generator=generator)

    corner, size = (normal(), normal()), (normal().exp(), normal().exp())
    # beyond both ends too, and at the knots themselves
    share = 1.4 * torch.rand(COUNT, generator=generator) - 0.2
    share[:1000], share[1000:2000] = 0.0, 1.0
    points = [start + length * share for start, length in zip(corner, size, strict=True)]
    return *points, corner, size, (normal(spread).exp(), normal(spread).exp())


def doubled(piece):
    return [tuple(part.double() for part in pair) for pair in piece]


@pytest.mark.parametrize("inverse", [False, True], ids=["map", "inverse"])
@pytest.mark.parametrize("spread", [0.0, 1.0, 3.0])
def test_single_precision_is_near_double_precision(spread, inverse):
    x, y, *piece = pieces(spread)
    given = y if inverse else x
    image, log_slope = rational_quadratic(given, *piece, inverse=inverse)
    exact, exact_log_slope = rational_quadratic(given.double(), *doubled(piece), inverse=inverse)
    assert ((image - exact).abs() <= 1e-5 * (1 + exact.abs())).all()
    assert (log_slope - exact_log_slope).abs().max() < 1e-4


@pytest.mark.parametrize("inverse", [False, True], ids=["map", "inverse"])
def test_the_log_slope_is_that_of_the_map(inverse):
    x, y, *piece = pieces(2.0)
    given = (y if inverse else x).double().requires_grad_()
    image, log_slope = rational_quadratic(given, *doubled(piece), inverse=inverse)
    (slope,) = torch.autograd.grad(image.sum(), given)
    torch.testing.assert_close(log_slope, slope.log(), rtol=0, atol=1e-6)


def test_the_inverse_undoes_the_map():
    x, _, *piece = pieces(3.0)
    y, log_slope = rational_quadratic(x.double(), *doubled(piece))
    back, inverse_log_slope = rational_quadratic(y, *doubled(piece), inverse=True)
    torch.testing.assert_close(back, x.double(), rtol=0, atol=1e-7)
    torch.testing.assert_close(inverse_log_slope, -log_slope, rtol=0, atol=1e-5)


@pytest.mark.parametrize("inverse", [False, True], ids=["map", "inverse"])
@pytest.mark.parametrize("spread", [3.0, 6.0, 8.0])
def test_every_gradient_is_finite(spread, inverse):
    x, y, *piece = pieces(spread)
    leaves = [leaf.requires_grad_() for pair in piece for leaf in pair] + [(y if inverse else x).requires_grad_()]
    image, log_slope = rational_quadratic(leaves[-1], *piece, inverse=inverse)
    for gradient in torch.autograd.grad(image.sum() + log_slope.sum(), leaves):
        assert gradient.isfinite().all()


def test_infinite_points_stay_infinite():
    one = torch.tensor(1.0)
    for inverse in (False, True):
        image, log_slope = rational_quadratic(
            torch.tensor([-torch.inf, torch.inf]), (0 * one, one), (one, 2 * one), (one, 3 * one), inverse=inverse
        )
        assert image.tolist() == [-torch.inf, torch.inf]
        assert log_slope.isfinite().all()


def test_gradients_are_those_of_double_precision():
    _, y, *piece = pieces(1.5)
    gradients = []
    for dtype in (torch.float32, torch.float64):
        inside = [
            leaf[2000:] for leaf in [y, *(leaf for pair in piece for leaf in pair)]
        ]  # no knots, where slopes bend
        leaves = [leaf.detach().to(dtype).requires_grad_() for leaf in inside]
        image, log_slope = rational_quadratic(leaves[0], *zip(leaves[1::2], leaves[2::2], strict=True), inverse=True)
        gradients.append(torch.autograd.grad((image + log_slope).sum(), leaves))
    for single, double in zip(*gradients, strict=True):
        assert ((single - double).abs() <= 1e-3 * (1 + double.abs())).all()
