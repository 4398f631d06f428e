"""Matrix exponentials against scipy and autograd; the norm cap is smooth, bounded and keeps the direction."""

from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torch import Tensor

from pyro_gflows.numerics import expm_apply, limit_norm, low_rank_matrix


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_low_rank_matrix_is_the_sum_of_outer_products():
    left, coefficients, right = normal(5, 4, 3), normal(5, 3, seed=1), normal(5, 4, 3, seed=2)
    expected = sum(coefficients[:, i, None, None] * left[:, :, i, None] * right[:, None, :, i] for i in range(3))
    torch.testing.assert_close(low_rank_matrix(left, coefficients, right), expected, rtol=0, atol=1e-14)


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


@pytest.mark.parametrize(("matrix_batch", "x_batch"), [((), ()), ((), (4,)), ((4,), (3, 4)), ((3, 4), (4,))])
def test_batches_broadcast(matrix_batch, x_batch):
    y, log_det = expm_apply(normal(*matrix_batch, 2, 2), normal(*x_batch, 2))
    batch = torch.broadcast_shapes(matrix_batch, x_batch)
    assert y.shape == (*batch, 2)
    assert log_det.shape == batch


def test_gradients():
    inputs = (normal(2, 3, 3).requires_grad_(), normal(2, 3, seed=1).requires_grad_())
    assert torch.autograd.gradcheck(expm_apply, inputs)
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
