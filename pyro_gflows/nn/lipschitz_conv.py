"""LipschitzConv: an equivariant convolution with a certified Lipschitz constant."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from pyro_gflows.actions import ImageAction
from pyro_gflows.groups.orbits import connected_components
from pyro_gflows.groups.wallpaper import pixel_targets
from pyro_gflows.nn.conv import EquivariantConv
from pyro_gflows.nn.kernel import LipschitzLayer
from pyro_gflows.numerics import spectral_norm
from pyro_gflows.numerics.precision import full_precision
from pyro_gflows.serialization.registry import registered

__all__ = ["LipschitzConv"]

# The norm is that of the dense matrix if the input or the output has at most this many components.
_EXACT_UP_TO = 64


@registered
class LipschitzConv(EquivariantConv, LipschitzLayer):
    r"""An equivariant convolution whose Lipschitz constant is at most ``bound`` for all weights.

    It is the linear layer of a residual branch on images. The kernel is :math:`\min(1, b / N(w))\,w`, where w is the
    unconstrained equivariant kernel, b the bound and N(w) an upper bound of the norm of the convolution with w. On a
    periodic grid, N is that norm: the largest singular value of the symbol (the Fourier transform of the kernel) over
    all frequencies. A convolution on n pixels that are padded with zeros is a part of the periodic one on n + k - 1
    pixels, whose norm is then the bound N. Frequencies in one orbit of the group share their singular values, so one
    frequency of each orbit suffices. If the grid is padded with zeros and no larger than the kernel, where that bound
    is loose, or if the images are small (one channel of 8 x 8 pixels), N is the norm itself. N is computed from the
    weights in each call, so that no step of an optimizer can break the bound.

    Args:
        action_in: How the group acts on the input.
        action_out: How the group acts on the output, on the same grid.
        kernel_size: The odd side of the square kernel.
        bias: The kind of bias, as for :class:`EquivariantConv`.
        bound: The largest Lipschitz constant in the Euclidean norm.

    Shape:
        input ``(..., C_in, H, W)``, output ``(..., C_out, H, W)``.

    Raises:
        ValueError: If the bound is not positive and finite, or as for :class:`EquivariantConv`.

    Example:
        >>> action = ImageAction("D4", 2, size=8, fields="regular")
        >>> bool(LipschitzConv(action, action, bound=0.9).lipschitz_bound() <= 0.9)
        True
    """

    _frequencies: Tensor
    _rotation_sign: Tensor
    _rotation_source: Tensor

    def __init__(
        self,
        action_in: ImageAction,
        action_out: ImageAction,
        *,
        kernel_size: int = 3,
        bias: bool | Literal["pixels"] = True,
        bound: float = 0.97,
    ) -> None:
        if not 0.0 < bound < float("inf"):
            raise ValueError(f"expected a positive finite bound, got {bound}")
        super().__init__(action_in, action_out, kernel_size=kernel_size, bias=bias)
        self.bound = bound
        self.register_buffer("_frequencies", _frequencies(action_in, self._periods()), persistent=False)
        side, pixels = min(action_in.event_shape[1:]), action_in.height * action_in.width
        small = side <= kernel_size or pixels * min(action_in.channels, action_out.channels) <= _EXACT_UP_TO
        self.exact = action_in.padding == "zero" and small
        rotation = _rotation_by_180(action_out)
        self._has_rotation = rotation is not None
        if rotation is not None:
            matrix = action_out.channel_matrices(rotation)
            sign = matrix.sum(-1, keepdim=True).to(torch.get_default_dtype())
            self.register_buffer("_rotation_source", matrix.abs().argmax(-1), persistent=False)
            self.register_buffer("_rotation_sign", sign, persistent=False)

    def weight(self) -> Tensor:
        """The kernel, scaled to the bound."""
        return self.bounded(super().weight())

    def bounded(self, free: Tensor) -> Tensor:
        """An equivariant kernel that satisfies the bound, made from any equivariant kernel."""
        bound = self.bound_below(free.dtype)
        return free * (bound / self.norm(free).clamp(min=bound))

    def bound_below(self, dtype: torch.dtype) -> float:
        """A value just below the bound, so that rounding does not lift the norm of a scaled kernel above the bound."""
        return self.bound * (1.0 - 32.0 * torch.finfo(dtype).eps)

    @full_precision
    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant for the present weights, a 0-dim tensor."""
        return self.norm(self.weight())

    def _periods(self) -> tuple[int, int]:
        enlarged = 0 if self.action_in.padding == "circular" else self.kernel_size - 1
        return self.action_in.height + enlarged, self.action_in.width + enlarged

    def norm(self, kernel: Tensor) -> Tensor:
        """The norm of the convolution with an equivariant kernel, or an upper bound of the norm; differentiable."""
        if self.exact:
            return spectral_norm(self._matrix(kernel))
        with torch.no_grad():
            largest = spectral_norm(self._symbols(kernel, self._frequencies)).argmax()
        # not by [largest], which reads the value: every call would then wait for the GPU
        return spectral_norm(self._symbols(kernel, self._frequencies.index_select(0, largest.reshape(1))[0]))

    def _matrix(self, kernel: Tensor) -> Tensor:
        """The zero-padded convolution (or its transpose) as a matrix, computed from the side with fewer channels."""
        if kernel.shape[0] < kernel.shape[1]:
            kernel = kernel.transpose(0, 1).flip(-1, -2)
        shape = (kernel.shape[1], self.action_in.height, self.action_in.width)
        units = torch.eye(math.prod(shape), dtype=kernel.dtype, device=kernel.device).reshape(-1, *shape)
        return functional.conv2d(units, kernel, padding=self.kernel_size // 2).flatten(1)

    def _symbols(self, kernel: Tensor, frequencies: Tensor) -> Tensor:
        r"""The symbols of the kernel at frequencies ``(..., 2)``, shape ``(..., C_out, C_in)``, up to unitary maps.

        A real kernel that the rotation by 180 degrees preserves has symbols with
        :math:`\bar S = P S P'`, where P and P' are its
        matrices on the channels. Unitary :math:`U = (e^{i \pi/4} + e^{-i \pi/4} P) / \sqrt{2}`, and U' likewise, then
        give the real matrix :math:`U S U'^* = \Re S + P\,\Im S`, whose singular values cost half as much or less.
        """
        offsets = torch.arange(self.kernel_size, device=kernel.device) - self.kernel_size // 2
        height, width = self._periods()
        rows = (frequencies[..., :1] * offsets % height).double() / height
        columns = (frequencies[..., 1:] * offsets % width).double() / width
        angles = 2 * math.pi * (rows[..., :, None] + columns[..., None, :])
        real = torch.einsum("oiuv,...uv->...oi", kernel, angles.cos().to(kernel))
        imaginary = torch.einsum("oiuv,...uv->...oi", kernel, angles.sin().to(kernel))
        if self._has_rotation:
            return real + self._rotation_sign * imaginary.index_select(-2, self._rotation_source)
        return torch.complex(real, imaginary)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, Lipschitz constant <= {self.bound:.4g}"


def _rotation_by_180(action: ImageAction) -> Tensor | None:
    """The rotation of the plane by 180 degrees, if the group contains it."""
    center = action.kernel_permutations(3)[:, [1, 3]] == torch.tensor([7, 5])  # up and left go down and right
    found = torch.nonzero(center.all(-1)).flatten()
    return found[0] if len(found) else None


def _frequencies(action: ImageAction, periods: tuple[int, int]) -> Tensor:
    """One frequency (row, column) of each orbit of the group; opposite ones share an orbit, as kernels are real."""
    height, width = periods
    rows, columns = (torch.arange(-(period // 2), period // 2 + 1) for period in periods)
    # on centered integers the group acts as on offsets; at an even period the two ends are one frequency
    name = ((rows % height)[:, None] * width + columns % width).flatten()
    point = action.point_group
    images = [
        torch.arange(len(name)).flip(0)[None],
        pixel_targets(point, len(rows), len(columns))[point.generators()],
    ]
    place = torch.empty(height * width, dtype=torch.int64)
    place[name] = torch.arange(len(name))
    orbits = connected_components(name[torch.cat(images)[:, place]])
    first = torch.stack([orbit[0] for orbit in orbits])
    return torch.stack([first // width, first % width], -1)
