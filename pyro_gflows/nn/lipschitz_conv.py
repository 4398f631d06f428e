"""LipschitzConv: an equivariant convolution that cannot stretch distances by more than a bound."""

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

# Numbers in the smaller of the input and the output up to which the norm is that of the materialized matrix.
_EXACT_UP_TO = 64


@registered
class LipschitzConv(EquivariantConv, LipschitzLayer):
    r"""An equivariant convolution with Lipschitz constant at most ``bound``, whatever its free weights are.

    The kernel is :math:`\min(1, b / N(w))\,w`, where w is the free equivariant kernel, b the bound and N(w) an upper
    bound of the norm of the convolution: the largest singular value of its symbol over all frequencies of the periodic
    grid of n + k - 1 pixels, of which a zero-padded convolution is a part (with periodic padding of the grid itself,
    where that is the norm). Frequencies in one orbit of the group share their singular values, so one of each is
    enough. On a zero-padded grid no larger than the kernel, where that bound is loose, and on few numbers (a single
    channel of 8 x 8), N is the norm itself. It is computed anew from the weights at each call: no step of an optimizer
    can break the bound.

    Args:
        action_in: how the group moves the input.
        action_out: how it moves the output, on the same grid.
        kernel_size: odd.
        bias: as for :class:`EquivariantConv`.
        bound: the largest Lipschitz constant, in the Euclidean norm.

    Shape:
        input ``(..., C_in, H, W)``, output ``(..., C_out, H, W)``.

    Raises:
        ValueError: a bound that is not positive and finite; else as :class:`EquivariantConv`.

    Example:
        >>> action = ImageAction("D4", 2, size=8, fields="regular")
        >>> bool(LipschitzConv(action, action, bound=0.9).lipschitz_bound() <= 0.9)
        True
    """

    _frequencies: Tensor
    _half_turn_sign: Tensor
    _half_turn_source: Tensor

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
        half_turn = _half_turn(action_out)
        self._has_half_turn = half_turn is not None
        if half_turn is not None:
            matrix = action_out.channel_matrices(half_turn)
            sign = matrix.sum(-1, keepdim=True).to(torch.get_default_dtype())
            self.register_buffer("_half_turn_source", matrix.abs().argmax(-1), persistent=False)
            self.register_buffer("_half_turn_sign", sign, persistent=False)

    def weight(self) -> Tensor:
        """The kernel, scaled."""
        return self.bounded(super().weight())

    def bounded(self, free: Tensor) -> Tensor:
        """An equivariant kernel with the bound, from any equivariant one."""
        bound = self.bound_below(free.dtype)
        return free * (bound / self.norm(free).clamp(min=bound))

    def bound_below(self, dtype: torch.dtype) -> float:
        """A little below the bound, so that rounding does not lift a scaled kernel above it."""
        return self.bound * (1.0 - 32.0 * torch.finfo(dtype).eps)

    @full_precision
    def lipschitz_bound(self) -> Tensor:
        """An upper bound of the Lipschitz constant of this layer with its present weights, a 0-dim tensor."""
        return self.norm(self.weight())

    def _periods(self) -> tuple[int, int]:
        enlarged = 0 if self.action_in.padding == "circular" else self.kernel_size - 1
        return self.action_in.height + enlarged, self.action_in.width + enlarged

    def norm(self, kernel: Tensor) -> Tensor:
        """The norm of the convolution with an equivariant kernel or an upper bound of it, differentiable."""
        if self.exact:
            return spectral_norm(self._matrix(kernel))
        with torch.no_grad():
            largest = spectral_norm(self._symbols(kernel, self._frequencies)).argmax()
        # not by [largest], which reads the number: a GPU would be waited for at every call
        return spectral_norm(self._symbols(kernel, self._frequencies.index_select(0, largest.reshape(1))[0]))

    def _matrix(self, kernel: Tensor) -> Tensor:
        """The zero-padded convolution (or its transpose) as a matrix, from the side with fewer channels."""
        if kernel.shape[0] < kernel.shape[1]:
            kernel = kernel.transpose(0, 1).flip(-1, -2)
        shape = (kernel.shape[1], self.action_in.height, self.action_in.width)
        units = torch.eye(math.prod(shape), dtype=kernel.dtype, device=kernel.device).reshape(-1, *shape)
        return functional.conv2d(units, kernel, padding=self.kernel_size // 2).flatten(1)

    def _symbols(self, kernel: Tensor, frequencies: Tensor) -> Tensor:
        r"""The symbols of the kernel at frequencies ``(..., 2)``, shape ``(..., C_out, C_in)``, up to unitary maps.

        A real kernel that the half-turn preserves has symbols with :math:`\bar S = P S P'`, where P and P' are its
        matrices on the channels. Unitary :math:`U = (e^{i \pi/4} + e^{-i \pi/4} P) / \sqrt{2}`, and U' likewise, then
        give the real matrix :math:`U S U'^* = \Re S + P\,\Im S`, whose singular values cost half as much or less.
        """
        offsets = torch.arange(self.kernel_size, device=kernel.device) - self.kernel_size // 2
        height, width = self._periods()
        rows = (frequencies[..., :1] * offsets % height).double() / height
        columns = (frequencies[..., 1:] * offsets % width).double() / width
        turns = 2 * math.pi * (rows[..., :, None] + columns[..., None, :])
        real = torch.einsum("oiuv,...uv->...oi", kernel, turns.cos().to(kernel))
        imaginary = torch.einsum("oiuv,...uv->...oi", kernel, turns.sin().to(kernel))
        if self._has_half_turn:
            return real + self._half_turn_sign * imaginary.index_select(-2, self._half_turn_source)
        return torch.complex(real, imaginary)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, Lipschitz constant <= {self.bound:.4g}"


def _half_turn(action: ImageAction) -> Tensor | None:
    """The element that turns the plane by 180 degrees, if there is one."""
    center = action.kernel_permutations(3)[:, [1, 3]] == torch.tensor([7, 5])  # up and left go down and right
    found = torch.nonzero(center.all(-1)).flatten()
    return found[0] if len(found) else None


def _frequencies(action: ImageAction, periods: tuple[int, int]) -> Tensor:
    """One frequency for each orbit of the group and of the sign (a kernel is real), as rows (row, column)."""
    height, width = periods
    rows, columns = (torch.arange(-(period // 2), period // 2 + 1) for period in periods)
    # on centered whole numbers the group acts as on offsets; at an even period the two ends are one frequency
    name = ((rows % height)[:, None] * width + columns % width).flatten()
    point = action.point_group
    moves = [
        torch.arange(len(name)).flip(0)[None],
        pixel_targets(point, len(rows), len(columns))[point.generators()],
    ]
    place = torch.empty(height * width, dtype=torch.int64)
    place[name] = torch.arange(len(name))
    orbits = connected_components(name[torch.cat(moves)[:, place]])
    first = torch.stack([orbit[0] for orbit in orbits])
    return torch.stack([first // width, first % width], -1)
