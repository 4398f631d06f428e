"""Matrix exponentials against scipy and autograd; the norm cap is smooth, bounded and keeps the direction."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from pyro_gflows.numerics import expm_apply, limit_norm, low_rank_expm_apply, low_rank_matrix, matrix_exp


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_low_rank_matrix_is_the_sum_of_outer_products():
    left, coefficients, right = normal(5, 4, 3), normal(5, 3, seed=1), normal(5, 4, 3, seed=2)
    expected = sum(coefficients[:, i, None, None] * left[:, :, i, None] * right[:, None, :, i] for i in range(3))
    torch.testing.assert_close(low_rank_matrix(left, coefficients, right), expected, rtol=0, atol=1e-14)


@pytest.mark.parametrize("batch", [(), (1,), (1, 1), (2,)], ids=str)
@pytest.mark.parametrize("norm", [1e-9, 1e-5, 1e-3, 0.01, 0.03, 0.0498, 0.06, 0.3, 1.0])
def test_exponentials_of_single_matrices_are_as_exact_as_those_of_many(norm, batch):
    generator = torch.Generator().manual_seed(0)
    matrix = torch.randn(3, 3, dtype=torch.float64, generator=generator)
    for scaled in (norm * torch.eye(3, dtype=torch.float64), norm * matrix / torch.linalg.matrix_norm(matrix, 1)):
        expected = torch.from_numpy(scipy.linalg.expm(scaled.numpy()))
        # torch's own result for a single one of them is wrong by up to 3e-10
        torch.testing.assert_close(
            matrix_exp(scaled.expand(*batch, 3, 3)), expected.expand(*batch, 3, 3), rtol=0, atol=1e-14
        )
        slope = torch.func.jvp(matrix_exp, (scaled,), (matrix,))[1]
        torch.testing.assert_close(
            slope, torch.from_numpy(scipy.linalg.expm_frechet(scaled.numpy(), matrix.numpy())[1]), rtol=0, atol=1e-13
        )


def test_the_exponential_of_no_matrices_is_empty():
    assert matrix_exp(torch.zeros(0, 3, 3)).shape == (0, 3, 3)


@pytest.mark.parametrize("norm", [0.0, 0.1, 1.0, 5.9])
@pytest.mark.parametrize("size", [1, 2, 3, 6])
def test_expm_apply_against_scipy(norm, size):
    matrix, x = normal(4, size, size), normal(4, size, seed=1)
    matrix = norm * matrix / torch.linalg.matrix_norm(matrix, 2)[:, None, None]
    y, log_det = expm_apply(matrix, x)
    dense = torch.stack([torch.from_numpy(scipy.linalg.expm(row.numpy())) for row in matrix])
    torch.testing.assert_close(y, (dense @ x.unsqueeze(-1)).squeeze(-1), rtol=1e-11, atol=1e-12)
    torch.testing.assert_close(log_det, torch.linalg.slogdet(dense).logabsdet, rtol=0, atol=1e-10)
    back, inverse_log_det = expm_apply(matrix, y, inverse=True)
    torch.testing.assert_close(back, x, rtol=0, atol=1e-9)
    torch.testing.assert_close(inverse_log_det, -log_det, rtol=0, atol=0)


@pytest.mark.parametrize("scale", [0.0, 1e-3, 1.0, 30.0])
@pytest.mark.parametrize("rank", [1, 2, 4])
def test_low_rank_exponential_is_that_of_the_matrix(rank, scale):
    factors, x = (normal(4, 40, rank), scale * normal(4, rank, seed=1), normal(4, 40, rank, seed=2)), normal(4, 40)
    for inverse in (False, True):
        expected = expm_apply(limit_norm(low_rank_matrix(*factors), 2.5), x, inverse=inverse)
        found = low_rank_expm_apply(x, *factors, bound=2.5, inverse=inverse)
        torch.testing.assert_close(found[0], expected[0], rtol=0, atol=1e-11)
        torch.testing.assert_close(found[1], expected[1], rtol=0, atol=1e-12)
    y = low_rank_expm_apply(x, *factors, bound=2.5)[0]
    torch.testing.assert_close(low_rank_expm_apply(y, *factors, bound=2.5, inverse=True)[0], x, rtol=0, atol=1e-10)


def test_low_rank_exponential_in_half_precision():
    factors = (normal(4, 40, 2).half(), normal(4, 2, seed=1).half(), normal(4, 40, 2, seed=2).half())
    y, log_det = low_rank_expm_apply(normal(4, 40).half(), *factors, bound=2.0)
    expected = low_rank_expm_apply(normal(4, 40), *(each.double() for each in factors), bound=2.0)[0]
    assert y.dtype == log_det.dtype == torch.float16
    torch.testing.assert_close(y.double(), expected, rtol=0, atol=1e-2)


@pytest.mark.parametrize(("matrix_batch", "x_batch"), [((), ()), ((), (4,)), ((4,), (3, 4)), ((3, 4), (4,))])
def test_batches_broadcast(matrix_batch, x_batch):
    y, log_det = expm_apply(normal(*matrix_batch, 2, 2), normal(*x_batch, 2))
    batch = torch.broadcast_shapes(matrix_batch, x_batch)
    assert y.shape == (*batch, 2)
    assert log_det.shape == batch


def test_gradients():
    inputs = (normal(2, 3, 3).requires_grad_(), normal(2, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(expm_apply, inputs)
    few = [normal(*shape, seed=3).requires_grad_() for shape in ((5, 2), (2,), (5, 2), (5,))]
    assert torch.autograd.gradcheck(lambda u, a, v, x: low_rank_expm_apply(x, u, a, v, bound=2.0), few)
    assert torch.autograd.gradcheck(lambda s: limit_norm(s, 0.7), inputs[:1])
    assert torch.autograd.gradcheck(lambda s: limit_norm(s, 0.7), torch.zeros(2, 2).double().requires_grad_())


@pytest.mark.parametrize("scale", [1e-8, 1e-2, 1.0, 1e3])
def test_cap_norm(scale):
    matrix, cap = scale * normal(20, 3, 3), 1.5
    capped = limit_norm(matrix, cap)
    assert (torch.linalg.matrix_norm(capped, 2) < cap).all()
    ratio = capped / matrix
    assert (ratio > 0).all()
    torch.testing.assert_close(ratio, ratio[:, :1, :1].expand_as(ratio))
    if scale == 1e-8:
        torch.testing.assert_close(capped, matrix, rtol=1e-14, atol=0)


def test_exponential_of_equivariant_factors_is_equivariant():
    q = torch.linalg.qr(normal(3, 3)).Q
    left, coefficients, right, x = normal(3, 2, seed=1), normal(2, seed=2), normal(3, 2, seed=3), normal(3, seed=4)
    y, log_det = expm_apply(limit_norm(low_rank_matrix(left, coefficients, right), 2.0), x)
    image, same = expm_apply(limit_norm(low_rank_matrix(q @ left, coefficients, q @ right), 2.0), q @ x)
    torch.testing.assert_close(image, q @ y, rtol=0, atol=1e-13)
    torch.testing.assert_close(same, log_det, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "call",
    [
        lambda: limit_norm(torch.eye(2), 0.0),
        lambda: limit_norm(torch.eye(2), math.inf),
        lambda: expm_apply(torch.ones(2, 3), torch.ones(3)),
        lambda: expm_apply(torch.eye(3), torch.ones(2)),
        lambda: low_rank_matrix(torch.ones(3, 2), torch.ones(3), torch.ones(3, 2)),
        lambda: low_rank_matrix(torch.ones(3, 2), torch.ones(2), torch.ones(3, 1)),
    ],
)
def test_bad_arguments_raise(call):
    with pytest.raises(ValueError, match=r"expected .* got"):
        call()
