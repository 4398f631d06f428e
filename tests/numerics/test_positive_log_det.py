"""The log-det of positive definite matrices: the value, and its first and second derivatives."""

from __future__ import annotations

import pytest
import torch

from pyro_gflows.numerics import positive_log_det


def matrices(size, *batch):
    root = torch.randn(*batch, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return root @ root.mT + 0.1 * torch.eye(size, dtype=torch.float64)


@pytest.mark.parametrize("size", [1, 3, 4, 9])
def test_value_and_gradient(size):
    matrix = matrices(size, 2, 3).requires_grad_()
    found = positive_log_det(matrix)
    assert torch.allclose(found, torch.linalg.slogdet(matrix).logabsdet, atol=1e-12)
    weights = torch.tensor([[1.0, 2.0, 3.0], [-1.0, 0.0, 5.0]], dtype=torch.float64)
    (gradient,) = torch.autograd.grad((weights * found).sum(), matrix)
    assert torch.allclose(gradient, weights[..., None, None] * torch.linalg.inv(matrix).mT, rtol=1e-8)


@pytest.mark.parametrize("size", [3, 5])
def test_second_derivatives(size):
    def symmetric(matrix):
        return positive_log_det((matrix + matrix.mT) / 2)

    matrix = matrices(size, 2).requires_grad_()
    assert torch.autograd.gradcheck(symmetric, matrix)
    assert torch.autograd.gradgradcheck(symmetric, matrix)


def test_function_transforms():
    matrix, direction = matrices(5, 2)
    direction = direction + direction.mT
    _, tangent = torch.func.jvp(positive_log_det, (matrix,), (direction,))
    assert torch.allclose(tangent, (torch.linalg.inv(matrix) @ direction).diagonal().sum())
    both = torch.func.vmap(torch.func.grad(positive_log_det))(matrices(5, 3))
    assert torch.allclose((both + both.mT) / 2, torch.linalg.inv(matrices(5, 3)), rtol=1e-8)


def test_a_matrix_that_is_not_positive_definite_spoils_its_own_row_only():
    matrix = torch.stack([torch.eye(4), -torch.eye(4)]).double()
    assert positive_log_det(matrix)[0] == 0
    assert not positive_log_det(matrix)[1].isfinite()
