"""Spectral norms against singular values; convolution bounds against the materialized convolution."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pyro_gflows.numerics import conv_norm_bound, largest_eigenvalue_bound, spectral_norm
from pyro_gflows.numerics.spectral import spectral_norms


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(1, 1), (2, 2), (3, 5), (5, 3), (4, 8, 8), (2, 3, 1, 7), (6, 64, 16)])
@pytest.mark.parametrize("scale", [1e-200, 1.0, 1e200])
def test_spectral_norm_is_the_largest_singular_value(shape, scale):
    matrix = scale * normal(*shape)
    torch.testing.assert_close(spectral_norm(matrix), torch.linalg.svdvals(matrix)[..., 0], rtol=1e-14, atol=0)


def test_spectral_norm_gradient():
    matrix = normal(3, 4, 6).requires_grad_()
    ours = torch.autograd.grad(spectral_norm(matrix).sum(), matrix)
    theirs = torch.autograd.grad(torch.linalg.matrix_norm(matrix, 2).sum(), matrix)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-13)


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (2, 4, 3)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_first_and_second_derivatives_of_the_spectral_norm(shape, dtype):
    """By finite differences, and those of torch.func, which take another way."""
    matrix = torch.randn(*shape, dtype=dtype, generator=torch.Generator().manual_seed(0)).requires_grad_()
    assert torch.autograd.gradcheck(spectral_norm, matrix)
    assert torch.autograd.gradgradcheck(spectral_norm, matrix)
    (plain,) = torch.autograd.grad(spectral_norm(matrix).sum(), matrix)
    functional = torch.func.grad(lambda matrix: spectral_norm(matrix).sum())(matrix.detach())
    torch.testing.assert_close(functional, plain, rtol=0, atol=1e-12)


def test_spectral_norm_of_orthogonal_zero_and_nan_matrices():
    matrix = torch.stack([torch.eye(3), torch.zeros(3, 3), torch.full((3, 3), torch.nan)]).double().requires_grad_()
    norm = spectral_norm(matrix)
    assert norm[:2].tolist() == pytest.approx([1.0, 0.0], abs=1e-15)
    assert norm[2].isnan()
    (gradient,) = torch.autograd.grad(norm[:2].sum(), matrix)
    assert gradient[:2].isfinite().all()
    assert torch.trace(gradient[0]) == pytest.approx(1.0)  # the norm is homogeneous


def materialized(weight: Tensor, size: int, padding: str) -> Tensor:
    c_in, kernel = weight.shape[1], weight.shape[-1]
    basis = torch.eye(c_in * size**2, dtype=weight.dtype).reshape(-1, c_in, size, size)
    if padding == "circular":
        before, after = kernel // 2, (kernel - 1) // 2
        while before or after:  # pad accepts at most one period at a time
            step = min(before, size), min(after, size)
            basis = torch.nn.functional.pad(basis, (step[0], step[1], step[0], step[1]), mode="circular")
            before, after = before - step[0], after - step[1]
        return torch.nn.functional.conv2d(basis, weight).flatten(1).mT
    return torch.nn.functional.conv2d(basis, weight, padding=kernel // 2).flatten(1).mT


# The bound is the tighter the larger the image is for the kernel.
LOOSENESS = {(1, 5): 1.0 + 1e-13, (1, 8): 1.0 + 1e-13, (3, 5): 1.25, (3, 8): 1.1, (5, 5): 1.6, (5, 8): 1.3}


@pytest.mark.parametrize("channels", [(1, 1), (2, 3), (4, 2)])
@pytest.mark.parametrize(("kernel", "size"), LOOSENESS)
def test_zero_padding_bound_is_true_and_tight(channels, kernel, size):
    for seed in range(4):
        weight = normal(*channels, kernel, kernel, seed=seed)
        norm = float(torch.linalg.matrix_norm(materialized(weight, size, "zero"), 2))
        bound = float(conv_norm_bound(weight, size))
        assert norm <= bound * (1 + 1e-13)
        assert bound <= norm * LOOSENESS[kernel, size]


def test_zero_padding_bound_is_within_a_few_percent_on_images():
    weight = normal(3, 3, 3, 3)
    norm = float(torch.linalg.matrix_norm(materialized(weight, 16, "zero"), 2))
    assert norm <= float(conv_norm_bound(weight, 16)) <= 1.03 * norm


@pytest.mark.parametrize("kernel", [1, 2, 3, 5])
@pytest.mark.parametrize("size", [4, 5])
def test_circular_norm_is_exact(kernel, size):
    weight = normal(3, 2, kernel, kernel)
    if kernel == 2:
        weight = torch.nn.functional.pad(weight, (0, 1, 0, 1))
    if kernel == 5 and size == 4:  # a kernel larger than the grid wraps around it
        assert weight.shape[-1] > size
    norm = torch.linalg.matrix_norm(materialized(weight, size, "circular"), 2)
    torch.testing.assert_close(conv_norm_bound(weight, size, padding="circular"), norm, rtol=1e-13, atol=0)


def test_one_and_three_spatial_axes_and_unequal_sizes():
    bound = conv_norm_bound(normal(2, 2, 3), 6)
    torch.testing.assert_close(bound, conv_norm_bound(normal(2, 2, 3).unsqueeze(-1), (6, 1)))
    torch.testing.assert_close(bound, conv_norm_bound(normal(2, 2, 3).reshape(2, 2, 1, 3, 1), (1, 6, 1)))


def test_bound_is_differentiable():
    weight = normal(2, 3, 3, 3).requires_grad_()
    for padding in ("zero", "circular"):
        assert torch.autograd.gradcheck(lambda w, p=padding: conv_norm_bound(w, 6, padding=p), weight)
    zero = torch.zeros(2, 3, 3, 3, requires_grad=True)
    (gradient,) = torch.autograd.grad(conv_norm_bound(zero, 6), zero)
    assert gradient.isfinite().all()


@pytest.mark.parametrize(
    "call",
    [
        lambda: spectral_norm(torch.ones(3)),
        lambda: spectral_norm(torch.ones(3, 0)),
        lambda: conv_norm_bound(torch.ones(3, 3), 4),
        lambda: conv_norm_bound(torch.ones(3, 3, 3, 3), (4,)),
        lambda: conv_norm_bound(torch.ones(3, 3, 3, 3), 0),
        lambda: conv_norm_bound(torch.ones(3, 3, 3, 3), 4, padding="reflect"),  # type: ignore[arg-type]
    ],
)
def test_bad_arguments_raise(call):
    with pytest.raises(ValueError, match=r"expected .* got"):
        call()


def test_a_batch_of_no_matrices_has_no_norms():
    for batch in ((0,), (2, 0), (0, 2)):
        assert spectral_norm(torch.zeros(*batch, 2, 3)).shape == batch


@pytest.mark.parametrize("multiplicity", [1, 2])
def test_the_smooth_bound_of_the_largest_eigenvalue(multiplicity):
    """It is a bound, close to the eigenvalue, at any scale, and has a second derivative where one is repeated."""
    root = torch.randn(3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for scale in (1e-30, 1.0, 1e30):
        for matrix in (root @ root.T, torch.diag(torch.tensor([2.0, 2.0, 0.0], dtype=torch.float64))):
            whole = torch.kron(scale * matrix, torch.eye(multiplicity, dtype=torch.float64))
            largest = float(torch.linalg.eigvalsh(whole)[-1])
            bound = float(largest_eigenvalue_bound(whole, multiplicity=multiplicity))
            assert largest * (1 - 1e-12) <= bound <= 3 ** (1 / 256) * largest * (1 + 1e-12)
    eye = torch.eye(2, dtype=torch.float64)

    def line(t):
        return largest_eigenvalue_bound((1 + t.square()) * eye, multiplicity=2)

    t = torch.tensor(0.3, dtype=torch.float64)
    assert torch.func.grad(torch.func.grad(line))(t) == pytest.approx(2.0, abs=1e-9)
    assert torch.func.grad(line)(t) == pytest.approx(0.6, abs=1e-12)


def test_norms_of_matrices_of_many_shapes_are_those_of_each_with_its_gradient():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 5), (2, 2), (3, 5), (1, 4), (2, 2), (3, 5)]
    matrices = [torch.randn(*s, generator=generator, dtype=torch.float64).requires_grad_() for s in shapes]
    norms = spectral_norms(matrices)
    weights = range(1, 7)
    found = torch.autograd.grad(sum(w * norm for w, norm in zip(weights, norms, strict=True)), matrices)
    for matrix, norm, gradient, weight in zip(matrices, norms, found, weights, strict=True):
        left, values, right = torch.linalg.svd(matrix.detach())
        torch.testing.assert_close(norm, values[0])
        torch.testing.assert_close(gradient, weight * left[:, :1] * right[:1])
