"""Exponentials of many small matrices, and the bound of their growth."""

import pytest
import torch

from pyro_gflows.numerics.symbol_exponential import growth_bound, many_exponentials


def matrices(count, size, *, seed=0, norm=1.0, dtype=torch.complex128):
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(count, size, size, dtype=torch.complex128, generator=generator)
    return (norm * found / torch.linalg.matrix_norm(found, 2)[:, None, None]).to(dtype)


@pytest.mark.parametrize("norm", [0.0, 1e-9, 0.04, 0.3, 3.0, 30.0])
@pytest.mark.parametrize("size", [1, 2, 7, 64])
def test_they_are_those_of_torch(size, norm):
    a = matrices(50, size, norm=norm)
    found, expected = many_exponentials(a), torch.linalg.matrix_exp(a)
    scale = torch.linalg.matrix_norm(expected)[:, None, None]
    assert ((found - expected) / scale).abs().max() < 1e-12
    single = many_exponentials(a.to(torch.complex64))
    assert single.dtype == torch.complex64 and ((single - expected) / scale).abs().max() < 1e-5 * (1 + norm)


@pytest.mark.parametrize("norm", [0.5, 30.0])
def test_those_of_skew_symmetric_matrices_are_unitary(norm):
    a = matrices(50, 6)
    a = a - a.mH
    found = many_exponentials(norm * a / torch.linalg.matrix_norm(a, 2)[:, None, None])
    assert (found @ found.mH - torch.eye(6)).abs().max() < 1e-12


def test_gradients_are_those_of_torch():
    weights = matrices(3, 4, norm=2.0).requires_grad_()
    other = matrices(3, 4, seed=1)
    gradients = [
        torch.autograd.grad((function(weights) * other).sum().real, weights)[0]
        for function in (many_exponentials, torch.linalg.matrix_exp)
    ]
    torch.testing.assert_close(*gradients, rtol=1e-10, atol=1e-10)
    assert torch.autograd.gradcheck(growth_bound, weights)


@pytest.mark.parametrize("count, size", [(5, 1), (5, 3), (300, 16), (2000, 24)])
def test_the_growth_is_bounded_and_nearly_reached(count, size):
    a = matrices(count, size)
    exact = torch.linalg.eigvalsh((a + a.mH) / 2).abs().max()
    bound = growth_bound(a)
    assert exact * (1 - 1e-12) <= bound <= min(size ** (1 / 8), 1.2) * exact * (1 + 1e-12)
    torch.testing.assert_close(growth_bound(1e-30 * a), 1e-30 * bound)


def test_the_growth_at_the_extremes():
    eye = torch.eye(16, dtype=torch.complex128)[None]
    torch.testing.assert_close(growth_bound(-2 * eye).item(), 2 * 16 ** (1 / 8))
    skew = matrices(5, 4)
    assert growth_bound(skew - skew.mH) < 1e-12
    zero = torch.zeros(3, 4, 4, dtype=torch.complex128, requires_grad=True)
    gradient = torch.autograd.grad(growth_bound(zero) ** 2, zero)[0]
    assert growth_bound(zero) < 1e-30 and gradient.abs().max() == 0


def test_matrices_that_are_not_finite_show():
    a = matrices(5, 3)
    a[2, 1, 1] = torch.nan
    assert many_exponentials(a)[2].isnan().any() and many_exponentials(a)[0].isfinite().all()
