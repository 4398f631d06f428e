"""The kernel whose exponential has a given symbol, for symbols of the user's own."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.nn.torus_kernel import TorusKernel, kernel_of
from pyro_gflows.numerics.matrix_log import matrix_log

__all__ = ["kernel_with_symbol"]

_SYMMETRY = 1e-6  # the largest relative error of a symbol that is taken for one of a real equivariant kernel


def kernel_with_symbol(generator: TorusKernel, symbol: Tensor) -> Tensor:
    """The real equivariant kernel whose symbol is the principal logarithm of a given one at every frequency.

    Args:
        generator: A kernel of all offsets, for its action; its weights are overwritten.
        symbol: Shape ``(H, W, C, C)``.

    Raises:
        ValueError: The symbol is of another shape or not finite; is not that of a real kernel or not of an equivariant
            one; or is singular, or has a negative eigenvalue, at a frequency, which the error names.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> generator = TorusKernel(ImageAction.translations(size=2)).double()
        >>> kernel_with_symbol(generator, torch.full((2, 2, 1, 1), math.e)).flatten().round(decimals=6)
        tensor([1., 0., 0., 0.], dtype=torch.float64)
    """
    action = generator.action
    shape = (action.height, action.width, action.channels, action.channels)
    if tuple(symbol.shape) != shape:
        raise ValueError(f"expected a symbol of shape {shape}, (H, W, C, C), for {action}, got {tuple(symbol.shape)}")
    exact = symbol.detach().to("cpu", torch.complex128)
    if not bool(torch.view_as_real(exact).isfinite().all()):
        raise ValueError("expected a symbol of finite entries")
    kernel, scale = kernel_of(exact), float(torch.linalg.matrix_norm(exact, 2).max())
    _require_small(kernel.imag, scale, "that of a real kernel, S(-k) the conjugate of S(k)")
    _require_invertible(exact, scale)
    _require_small(kernel.real - _nearest(generator, kernel.real), scale, f"equivariant for {action}")
    return _nearest(generator, kernel_of(matrix_log(exact)).real)


def _nearest(generator: TorusKernel, kernel: Tensor) -> Tensor:
    generator.assign_(kernel)
    with torch.no_grad():
        return generator.kernel().to("cpu", torch.float64)


def _require_small(kernel: Tensor, scale: float, what: str) -> None:
    """ValueError unless the symbol of a kernel is small at all frequencies."""
    difference = torch.linalg.matrix_norm(torch.fft.fft2(kernel).permute(2, 3, 0, 1), 2)
    if float(difference.max()) > _SYMMETRY * scale:
        raise ValueError(
            f"expected a symbol S that is {what}, got one that differs from the nearest of these by "
            f"{float(difference.max()) / scale:.2g} of its norm, at the frequency "
            f"{_place(difference.argmax(), difference)}"
        )


def _require_invertible(symbol: Tensor, scale: float) -> None:
    least = torch.linalg.svdvals(symbol)[..., -1]
    if float(least.min()) <= 1e-10 * scale:
        raise ValueError(
            "expected a symbol that is singular at no frequency, got one with the singular value "
            f"{float(least.min()):.2g} at the frequency {_place(least.argmin(), least)} (its norm is {scale:.2g}); a "
            "convolution that removes a frequency has no inverse"
        )
    angle = torch.linalg.eigvals(symbol).angle().abs().amax(-1)
    if float(angle.max()) > math.pi - 1e-6:
        raise ValueError(
            f"expected a symbol with a logarithm, got a negative eigenvalue at the frequency "
            f"{_place(angle.argmax(), angle)}; take its sign out, with a GLinearPLU before this layer"
        )


def _place(index: Tensor, table: Tensor) -> tuple[int, int]:
    return divmod(int(index), table.shape[1])
