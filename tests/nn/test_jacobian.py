"""The closed-form Jacobian of two convolutions with a diagonal between, against autograd."""

import pytest
import torch
from torch.nn.functional import conv2d, pad

from pyro_gflows.nn.jacobian import dense_sandwich, sandwich_jacobian, transposed_convolution


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 3), (4, 4), (5, 3)])
@pytest.mark.parametrize("size", [1, 3, 5])
@pytest.mark.parametrize("periodic", [False, True])
@pytest.mark.parametrize(("channels_in", "hidden", "channels_out"), [(1, 1, 1), (2, 3, 2), (3, 2, 1)])
def test_is_the_jacobian_of_autograd(height, width, size, periodic, channels_in, hidden, channels_out):
    if periodic and size // 2 > min(height, width):
        pytest.skip("a grid is padded by itself at most once")
    inner = torch.randn(hidden, channels_in, size, size, dtype=torch.float64)
    outer = torch.randn(channels_out, hidden, size, size, dtype=torch.float64)
    slope = torch.randn(2, 2, hidden, height, width, dtype=torch.float64)

    def convolve(x, kernel):
        return conv2d(pad(x, [size // 2] * 4, mode="circular" if periodic else "constant"), kernel)

    def apply(x, slope):
        return convolve(slope * convolve(x, inner), outer)

    found = sandwich_jacobian(outer, slope, inner, periodic=periodic)
    assert found.shape == (2, 2, channels_out * height * width, channels_in * height * width)
    x = torch.zeros(channels_in, height, width, dtype=torch.float64)
    for row, expected_slope in zip(found.flatten(0, 1), slope.flatten(0, 1), strict=True):
        expected = torch.autograd.functional.jacobian(lambda x, s=expected_slope: apply(x[None], s)[0], x)
        torch.testing.assert_close(row, expected.reshape(row.shape), rtol=0, atol=1e-12)


@pytest.mark.parametrize("periodic", [True, False])
@pytest.mark.parametrize("channels", [(2, 1), (18, 2), (3, 4)])
@pytest.mark.parametrize("size", [1, 3, 5])
def test_the_transposed_convolution_is_the_transposed_matrix(size, channels, periodic):
    """Whichever way it is computed: by a convolution, or by a product and shifts."""
    generator = torch.Generator().manual_seed(0)
    kernel = torch.randn(*channels, size, size, dtype=torch.float64, generator=generator)
    x = torch.randn(2, 3, channels[0], 6, 4, dtype=torch.float64, generator=generator)

    def convolution(x):
        mode = "circular" if periodic else "constant"
        return torch.nn.functional.conv2d(torch.nn.functional.pad(x, (size // 2,) * 4, mode=mode), kernel)

    units = torch.eye(channels[1] * 24, dtype=torch.float64).reshape(-1, channels[1], 6, 4)
    matrix = convolution(units).flatten(1).T
    expected = (x.flatten(-3) @ matrix).reshape(2, 3, channels[1], 6, 4)
    torch.testing.assert_close(transposed_convolution(kernel, x, periodic=periodic), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sizes", [(1, 3, 1), (4, 6, 2), (33, 7, 33), (2, 5, 40)])
@pytest.mark.parametrize("batch", [(), (0,), (3,), (2, 3)])
def test_the_product_of_two_matrices_with_a_diagonal_between(batch, sizes):
    """Whichever way it is computed: from products of rows and columns, or from products of matrices."""
    rows, hidden, columns = sizes
    outer, inner = torch.randn(rows, hidden, dtype=torch.float64), torch.randn(hidden, columns, dtype=torch.float64)
    slope = torch.randn(*batch, hidden, dtype=torch.float64)
    expected = torch.einsum("oc,...c,ci->...oi", outer, slope, inner)
    torch.testing.assert_close(dense_sandwich(outer, slope, inner), expected, rtol=0, atol=1e-12)
