"""The exponential series: its error bound holds, and its length is about the least that satisfies it. Contract 25."""

import math

import pytest
import torch

from pyro_gflows.numerics.exponential_series import apply_exponential, series_length, truncation_error
from pyro_gflows.numerics.spectral import conv_norm_bound, sampled_conv_norm_bound

EPS = torch.finfo(torch.float64).eps


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("steps, terms", [(1, 3), (1, 8), (2, 4), (3, 6)])
@pytest.mark.parametrize("norm", [0.3, 1.0, 3.0])
def test_the_error_is_below_the_bound(norm, steps, terms, seed):
    matrix = torch.randn(6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    matrix = matrix * norm / torch.linalg.matrix_norm(matrix, 2)
    growth = torch.linalg.eigvalsh((matrix + matrix.T) / 2)[-1].item()
    eye = torch.eye(6, dtype=torch.float64)
    found = apply_exponential(lambda x, factor: factor * matrix @ x, eye, steps=steps, terms=terms)
    error = torch.linalg.matrix_norm(found - torch.linalg.matrix_exp(matrix), 2).item()
    remainder = truncation_error(norm, steps, terms) / steps
    assert error <= steps * remainder * (math.exp(growth / steps) + remainder) ** (steps - 1) + 100 * EPS
    assert error > 1e-5 * remainder  # the bound says something


@pytest.mark.parametrize("norm", [0.0, 1e-9, 0.1, 1.0, 4.0, 4.1, 30.0, 999.0])
@pytest.mark.parametrize("tolerance", [EPS, torch.finfo(torch.float32).eps])
def test_the_length_suffices_and_no_term_is_superfluous(norm, tolerance):
    steps, terms = series_length(norm, tolerance)
    assert truncation_error(norm, steps, terms) <= tolerance and norm / steps <= 4.0
    assert terms == 1 or truncation_error(norm, steps, terms - 1) > tolerance
    assert norm < 1 or steps * terms <= 10 + 9 * norm + 12


def test_norms_without_a_series():
    assert series_length(math.nan, EPS) == series_length(math.inf, EPS) == (1, 1)
    with pytest.raises(ValueError, match="norm at most 1000, got one of norm 1e.04"):
        series_length(1e4, EPS)


@pytest.mark.parametrize("padding", ["zero", "circular"])
@pytest.mark.parametrize("side", [1, 3, 5])
@pytest.mark.parametrize("size", [(4, 4), (40, 3), (40, 50)])
def test_the_sampled_bound_is_a_bound_and_tight(size, side, padding):
    weight = torch.randn(3, 2, side, side, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    every = conv_norm_bound(weight, size, padding=padding)
    sampled = sampled_conv_norm_bound(weight, size, padding=padding)
    assert every * (1 - 1e-12) <= sampled <= 1.073 * every
    if max(size) == 4:
        torch.testing.assert_close(sampled, every)
    with pytest.raises(ValueError, match="padding"):
        sampled_conv_norm_bound(weight, size, padding="reflect")


def test_the_sampled_bound_is_reached_between_the_samples():
    """A peak that lies between two sampled frequencies, by the translation of a cosine in the frequency."""
    shift = math.pi / 12
    weight = torch.tensor([math.cos(shift), -math.sin(shift)], dtype=torch.float64)  # of cos and of sin
    row = torch.stack([weight[0] + weight[1] * 1j, torch.zeros((), dtype=torch.complex128), weight[0] - weight[1] * 1j])
    pairs = torch.view_as_real(row)  # Re and Im as 2 x 2 matrices, so that the kernel is real
    kernel = torch.stack([torch.stack([pairs[:, 0], -pairs[:, 1]]), torch.stack([pairs[:, 1], pairs[:, 0]])])
    kernel = kernel[:, :, None, :]
    exact = conv_norm_bound(kernel, (1, 2400), padding="circular")
    assert exact <= sampled_conv_norm_bound(kernel, (1, 2400), padding="circular") * (1 + 1e-12)
    assert exact > 1.03 * conv_norm_bound(kernel, (1, 12), padding="circular")
