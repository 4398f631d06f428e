"""Derivatives of branches with one hidden layer, in closed form."""

from __future__ import annotations

import functools

import torch
from torch import Tensor
from torch.nn import functional

from pyro_gflows.nn.conv import wrapped
from pyro_gflows.numerics.constants import as_constants

__all__ = ["dense_sandwich", "sandwich_jacobian", "transposed_convolution", "transposed_map"]

_PAIRS_UP_TO = 32  # components of an event


def dense_sandwich(outer: Tensor, slope: Tensor, inner: Tensor) -> Tensor:
    r"""The matrix outer diag(slope) inner, for each row of the batch.

    It is the Jacobian of a network on vectors with one hidden layer. On small events it is one product of the slopes
    with the matrices :math:`o_c i_c^T` of all hidden coordinates c, which the rows share.

    Args:
        outer: The second kernel, shape ``(O, C)``.
        slope: The slope of the activation, shape ``batch + (C,)``.
        inner: The first kernel, shape ``(C, I)``.

    Example:
        >>> dense_sandwich(torch.eye(2), torch.tensor([[2.0, 3.0]]), torch.eye(2)).tolist()
        [[[2.0, 0.0], [0.0, 3.0]]]
    """
    size = (outer.shape[0], inner.shape[1])
    if max(size) > _PAIRS_UP_TO:
        return (outer * slope.unsqueeze(-2)) @ inner
    pairs = outer.T.unsqueeze(-1) * inner.unsqueeze(-2)
    return (slope @ pairs.flatten(1)).unflatten(-1, size)


def sandwich_jacobian(outer: Tensor, slope: Tensor, inner: Tensor, *, periodic: bool = False) -> Tensor:
    r"""The matrix of conv(outer) diag(slope) conv(inner) on images, for each row of the batch.

    It is the Jacobian of a network with one hidden layer. A pixel r of the hidden image couples a k x k patch of inputs
    to a k x k patch of outputs by :math:`\sum_c W_2[o, c, a]\, s_c(r)\, W_1[c, i, b]`, which is one small product for
    each pixel, followed by a scatter. This costs ``H W C O I k^4``, where dense matrices would cost ``(H W)^3 C O I``.

    Args:
        outer: The second kernel, shape ``(O, C, k, k)``.
        slope: The slope of the activation, shape ``batch + (C, H, W)``.
        inner: The first kernel, shape ``(C, I, k, k)``.
        periodic: Whether the grid is periodic; otherwise images are padded with zeros.

    Returns:
        The Jacobians, shape ``batch + (O H W, I H W)``.

    Example:
        >>> kernel = torch.ones(1, 1, 1, 1)
        >>> sandwich_jacobian(kernel, torch.tensor([[[2.0, 3.0]]]), kernel).tolist()
        [[2.0, 0.0], [0.0, 3.0]]
    """
    channels_out, hidden, size, _ = outer.shape
    channels_in = inner.shape[1]
    height, width = slope.shape[-2:]
    pairs = torch.einsum("ocx,ciy->coxiy", outer.flatten(2), inner.flatten(2)).reshape(hidden, -1)
    batch = slope.shape[:-3]
    coupling = slope.reshape(-1, hidden, height * width).mT @ pairs
    target, kept = _places(height, width, size, channels_out, channels_in, periodic=periodic, device=slope.device)
    flat = slope.new_zeros(len(coupling), channels_out * channels_in * (height * width) ** 2)
    flat = flat.index_add(1, target, coupling.flatten(1)[:, kept])
    return flat.reshape(*batch, channels_out * height * width, channels_in * height * width)


def transposed_convolution(kernel: Tensor, x: Tensor, *, periodic: bool = False) -> Tensor:
    """The transpose of a convolution that has a kernel of odd size and keeps the size of images, applied to x.

    Args:
        kernel: The kernel of the convolution, shape ``(O, I, k, k)``.
        x: Images of shape ``batch + (O, H, W)``.
        periodic: Whether the grid is periodic; otherwise images are padded with zeros.

    Returns:
        Images of shape ``batch + (I, H, W)``.

    Example:
        >>> transposed_convolution(torch.ones(2, 3, 1, 1), torch.ones(2, 4, 4)).shape
        torch.Size([3, 4, 4])
    """
    channels_out, channels_in, size, _ = kernel.shape
    flat, reach = x.reshape(-1, *x.shape[-3:]), size // 2
    if channels_in * size**2 <= channels_out:
        found = _by_shifts(kernel, flat, periodic)
    else:
        found = functional.conv2d(_padded(flat, reach, periodic), kernel.transpose(0, 1).flip(-1, -2))
    return found.reshape(*x.shape[:-3], *found.shape[-3:])


def _padded(x: Tensor, reach: int, periodic: bool) -> Tensor:
    return wrapped(x, reach) if periodic else functional.pad(x, (reach,) * 4)


def _by_shifts(kernel: Tensor, x: Tensor, periodic: bool) -> Tensor:
    """The result as one matrix product and a sum of shifted images, which is faster if there are few input channels."""
    (_, channels_in, size, _), (height, width) = kernel.shape, x.shape[-2:]
    # not by @, which would first copy x into one matrix where the kernel needs a gradient
    images = torch.bmm(kernel.flatten(1).T.expand(len(x), -1, -1), x.flatten(2)).unflatten(-1, (height, width))
    padded = _padded(images, size // 2, periodic).unflatten(1, (channels_in, size, size))
    shifts = [
        padded[:, :, row, column, size - 1 - row :, size - 1 - column :][..., :height, :width]
        for row in range(size)
        for column in range(size)
    ]
    return torch.stack(shifts).sum(0)


def transposed_map(matrix: Tensor, x: Tensor) -> Tensor:
    """The transpose of a matrix ``(O, I)``, applied to vectors ``batch + (O,)``."""
    return x @ matrix


@functools.lru_cache(maxsize=16)
@as_constants()
def _places(
    height: int, width: int, size: int, channels_out: int, channels_in: int, *, periodic: bool, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The place in the matrix of each coupling (pixel; o, a, i, b) inside the image, and the index of each.

    An output at pixel r - a is reached through offset a, an input at pixel r + b through offset b.
    """
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    offsets = torch.arange(size * size)
    shift_row, shift_column = offsets // size - size // 2, offsets % size - size // 2

    def reached(sign: int) -> tuple[Tensor, Tensor]:
        row = rows.reshape(-1, 1) + sign * shift_row
        column = columns.reshape(-1, 1) + sign * shift_column
        inside = torch.ones_like(row, dtype=torch.bool)
        if not periodic:
            inside = (row >= 0) & (row < height) & (column >= 0) & (column < width)
        return row % height * width + column % width, inside

    output, output_inside = reached(-1)
    source, source_inside = reached(1)
    pixels = height * width
    out_place = (torch.arange(channels_out)[:, None] * pixels + output[:, None, :])[:, :, :, None, None]
    in_place = (torch.arange(channels_in)[:, None] * pixels + source[:, None, :])[:, None, None, :, :]
    place = (out_place * (channels_in * pixels) + in_place).reshape(-1)
    inside = output_inside[:, None, :, None, None] & source_inside[:, None, None, None, :]
    inside = inside.expand(-1, channels_out, -1, channels_in, -1).reshape(-1)
    kept = torch.nonzero(inside).flatten()
    return place[kept].to(device), kept.to(device)
