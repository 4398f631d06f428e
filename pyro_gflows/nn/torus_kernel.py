"""TorusKernel: an equivariant kernel on the offsets of a periodic grid, and its Fourier transform."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from pyro_gflows.actions import ImageAction
from pyro_gflows.actions.requirements import require_image
from pyro_gflows.groups.wallpaper import WallpaperGroup
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.nn.tying import kernel_entries, signed_orbits, spread, tied_to

__all__ = ["TorusKernel", "kernel_of", "symbol_of"]


def symbol_of(kernel: Tensor) -> Tensor:
    r"""The Fourier transform (symbol) of a real kernel.

    .. math:: A(k) = \sum_q a(q)\,e^{2 \pi i (k_1 q_1/H + k_2 q_2/W)}

    The periodic convolution :math:`y(p) = \sum_q a(q)\,x(p + q)` multiplies the Fourier coefficients of x at each
    frequency k by the matrix A(k). At opposite frequencies these are complex conjugates, so half of them suffice.

    Args:
        kernel: Shape ``(C, C, H, W)``, with the offset 0 at the place (0, 0).

    Returns:
        Shape ``(H, W // 2 + 1, C, C)``.

    Example:
        >>> kernel = torch.zeros(1, 1, 4, 4)
        >>> kernel[0, 0, 0, 1] = 1.0  # a shift by one column
        >>> torch.view_as_real(symbol_of(kernel)[0, 1, 0, 0]).round().tolist()
        [0.0, 1.0]
    """
    return torch.fft.rfft2(kernel).permute(2, 3, 0, 1).conj().resolve_conj().contiguous()


def kernel_of(symbol: Tensor) -> Tensor:
    """The complex kernel with these matrices at all frequencies, the inverse of the Fourier transform.

    Args:
        symbol: Shape ``(H, W, C, C)``.

    Returns:
        Shape ``(C, C, H, W)``.

    Example:
        >>> kernel_of(torch.ones(2, 2, 1, 1) + 0j).real.flatten().tolist()
        [1.0, 0.0, 0.0, 0.0]
    """
    return torch.fft.ifft2(symbol.permute(2, 3, 0, 1).conj()).conj()


class TorusKernel(KernelLayer):
    """A real equivariant kernel whose offsets are those of a periodic grid, up to the whole grid.

    There is one weight for each orbit of entries (output channel, input channel, offset) under the point group, as for
    :class:`EquivariantConv`. The point group acts on offsets by integer matrices, modulo the size of the grid, so its
    symbol A satisfies A(g k) = rho(g) A(k) rho(g)^-1. The group may act about the center of the grid although the
    center may lie between pixels: differences of pixels do not see where the center is.

    Args:
        action: How the group acts on images: fields whose channels are permuted, up to signs.
        support: The odd side of the square of offsets at which the kernel may be nonzero; None for all offsets.

    Raises:
        ValueError: If the support is even or not positive, or channels are not permuted up to signs.

    Example:
        >>> TorusKernel(ImageAction("D4", size=8), support=3).kernel().shape
        torch.Size([1, 1, 8, 8])
        >>> [len(TorusKernel(ImageAction("D4", size=8), support=side).orbit_weights) for side in (3, 5, None)]
        [3, 6, 15]
    """

    _index: Tensor
    _sign: Tensor
    _places: Tensor

    def __init__(self, action: ImageAction, *, support: int | None = None) -> None:
        super().__init__()
        images = require_image(action)
        if not images.is_signed_permutation:
            raise ValueError(f"expected fields whose channels are permuted up to signs, got {images}")
        if support is not None and (not isinstance(support, int) or support < 1 or support % 2 == 0):
            raise ValueError(f"expected an odd support, which has a center, or None for all offsets, got {support!r}")
        self.action, self.support = images, support
        self._size = height, width = images.height, images.width
        rows, columns = (_offsets(side, support) for side in self._size)
        places = (rows[:, None] * width + columns).flatten()
        number = torch.full((height * width,), -1)
        number[places] = torch.arange(len(places))
        linear = WallpaperGroup(height, width, point_group=images.point_group).linear[images.point_group.generators()]
        down, right = (linear @ torch.stack([places // width, places % width])).unbind(1)
        offsets = number[down % height * width + right % width]
        targets, signs, _ = kernel_entries(images, images, offsets)
        index, sign = signed_orbits(targets, signs)
        self.register_buffer("_index", index, persistent=False)
        shape = (images.channels, images.channels, len(places))
        self.register_buffer("_sign", sign.to(torch.get_default_dtype()).view(shape), persistent=False)
        self.register_buffer("_places", places, persistent=False)
        self.orbit_weights = nn.Parameter(torch.zeros(int(index.max()) + 1 if bool(sign.any()) else 0))

    def _make_kernel(self) -> Tensor:
        values = spread(self.orbit_weights, self._index, self._sign)
        whole = values.new_zeros(*values.shape[:2], self._size[0] * self._size[1])
        return whole.index_copy(-1, self._places, values).unflatten(-1, self._size)

    def assign_(self, kernel: Tensor) -> None:
        """Set the weights so that the kernel is the equivariant kernel of this support that is nearest to another one.

        Args:
            kernel: Any kernel of shape ``(C, C, H, W)``.
        """
        with torch.no_grad():
            values = kernel.flatten(-2)[..., self._places]
            self.orbit_weights.copy_(tied_to(self.orbit_weights, values, self._index, self._sign))

    def extra_repr(self) -> str:
        side = "all offsets" if self.support is None else f"{self.support}x{self.support}"
        return f"{self.action}, {side}, {self.orbit_weights.numel()} weights"


def _offsets(period: int, support: int | None) -> Tensor:
    """The offsets along one axis at which a kernel may be nonzero, between 0 and the period."""
    if support is None or support >= period:
        return torch.arange(period)
    return torch.arange(-(support // 2), support // 2 + 1) % period
