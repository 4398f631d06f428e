"""Trigonometric polynomials against sums written out, finite differences and closed-form solutions."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from pyro_gflows.numerics import fourier_coefficients, periodic_grid, solve_poisson, trigonometric_derivatives
from pyro_gflows.numerics import trigonometric as module

SIZES = [(5, 1), (6, 1), (5, 2), (6, 2), (5, 3), (6, 3)]


def smooth_values(size, dimension, seed=0):
    """Values of a random real trigonometric polynomial with frequencies up to 2, and the list of its waves."""
    generator = torch.Generator().manual_seed(seed)
    waves = [
        (torch.tensor(k, dtype=torch.float64), *torch.randn(2, generator=generator, dtype=torch.float64))
        for k in itertools.product(range(-2, 3), repeat=dimension)
    ]

    def function(x):
        return sum(a * (x @ k).cos() + b * (x @ k).sin() for k, a, b in waves)

    return function(periodic_grid(size, dimension).reshape(-1, dimension)).reshape([size] * dimension), function


def points(n, dimension, seed=1):
    return 7 * torch.randn(n, dimension, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("size", "dimension"), SIZES)
def test_a_polynomial_and_its_derivatives_at_any_points(size, dimension):
    values, function = smooth_values(size, dimension)
    x = points(4, dimension)
    value, gradient, hessian = trigonometric_derivatives(fourier_coefficients(values), x, 2)
    torch.testing.assert_close(value, function(x), rtol=0, atol=1e-11)
    for row, point in enumerate(x):
        jacobian = torch.autograd.functional.jacobian(lambda v: function(v[None])[0], point)
        torch.testing.assert_close(gradient[row], jacobian, rtol=0, atol=1e-10)
        second = torch.autograd.functional.hessian(lambda v: function(v[None])[0], point)
        torch.testing.assert_close(hessian[row], second, rtol=0, atol=1e-10)


@pytest.mark.parametrize("dimension", [1, 2])
def test_waves_at_the_nyquist_frequency_are_left_out(dimension):
    nyquist = (3 * periodic_grid(6, dimension)[..., 0]).cos()
    values, _ = smooth_values(6, dimension)
    torch.testing.assert_close(fourier_coefficients(values + nyquist), fourier_coefficients(values))
    assert trigonometric_derivatives(fourier_coefficients(nyquist), points(3, dimension), 1)[1].abs().max() < 1e-14


@pytest.mark.parametrize(("size", "dimension"), SIZES)
def test_poisson_s_equation(size, dimension):
    values, function = smooth_values(size, dimension)
    x = points(4, dimension)
    hessian = trigonometric_derivatives(solve_poisson(values), x, 2)[2]
    laplacian = hessian.diagonal(dim1=-2, dim2=-1).sum(-1)
    torch.testing.assert_close(laplacian, function(x) - values.mean(), rtol=0, atol=1e-10)
    grid = periodic_grid(8, dimension).reshape(-1, dimension)
    assert trigonometric_derivatives(solve_poisson(values), grid, 0)[0].mean().abs() < 1e-12


def test_the_solution_leaves_out_frequencies_that_are_rounding_errors():
    x = periodic_grid(64, 2)
    smooth = (x.cos().sum(-1)).exp()
    few = solve_poisson(smooth)
    assert few.shape[0] < 20
    every = fourier_coefficients(smooth)
    k = torch.stack(torch.broadcast_tensors(*module._frequencies(every)))
    squares = k.square().sum(0)
    dense = -every / torch.where(squares > 0, squares, math.inf)
    at = points(5, 2)
    for first, second in zip(
        trigonometric_derivatives(few, at, 2), trigonometric_derivatives(dense, at, 2), strict=True
    ):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-12)
    assert solve_poisson(torch.zeros(8, 8, dtype=torch.float64)).abs().max() == 0


def test_groups_of_points_change_nothing(monkeypatch):
    values, _ = smooth_values(6, 2)
    coefficients, x = fourier_coefficients(values), points(7, 2)
    whole = trigonometric_derivatives(coefficients, x, 2)
    monkeypatch.setattr(module, "_CHUNK_ELEMENTS", 20)
    for first, second in zip(trigonometric_derivatives(coefficients, x, 2), whole, strict=True):
        torch.testing.assert_close(first, second, rtol=0, atol=1e-13)


def test_it_follows_the_dtype_and_is_differentiable():
    values, _ = smooth_values(6, 2)
    coefficients, x = fourier_coefficients(values), points(3, 2)
    single = trigonometric_derivatives(coefficients, x.float(), 1)[0]
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), trigonometric_derivatives(coefficients, x, 0)[0], rtol=0, atol=1e-4)
    x.requires_grad_()
    value, gradient, hessian = trigonometric_derivatives(coefficients, x, 2)
    (slope,) = torch.autograd.grad(value.sum(), x, create_graph=True)
    torch.testing.assert_close(slope, gradient)
    torch.testing.assert_close(torch.autograd.grad(gradient[:, 0].sum(), x)[0], hessian[:, 0])
    mapped = torch.func.vmap(lambda point: trigonometric_derivatives(coefficients, point[None], 1)[1][0])(x.detach())
    torch.testing.assert_close(mapped, gradient.detach())


def test_wrong_arguments():
    with pytest.raises(ValueError, match=r"equal sides, got \(4, 6\)"):
        fourier_coefficients(torch.zeros(4, 6))
    coefficients = fourier_coefficients(torch.zeros(4, 4, dtype=torch.float64))
    with pytest.raises(ValueError, match=r"points of shape \(n, 2\), got \(3, 1\)"):
        trigonometric_derivatives(coefficients, torch.zeros(3, 1), 1)
    with pytest.raises(ValueError, match=r"order 0, 1 or 2 of the highest derivative, got 3"):
        trigonometric_derivatives(coefficients, torch.zeros(3, 2), 3)
