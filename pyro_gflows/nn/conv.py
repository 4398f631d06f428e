"""EquivariantConv: all equivariant convolutions on the pixel grid."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.actions import ImageAction
from pyro_gflows.actions.requirements import require_image
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.nn.tying import channel_images, coordinate_images, kernel_entries, signed_orbits, spread, tied_to
from pyro_gflows.serialization.registry import registered

__all__ = ["EquivariantConv", "convolve", "wrapped"]


@registered
class EquivariantConv(KernelLayer):
    r"""The most general convolution of stride 1 with :math:`\mathrm{conv}(g\,x) = g\,\mathrm{conv}(x)`.

    The group permutes the entries (output channel, input channel, offset) of the kernel, up to signs. A kernel is
    equivariant if and only if entries that the group takes to each other are equal up to these signs. So there is one
    weight for each such set of entries (orbit), the kernel is an index gather from the weights, and equivariance holds
    to float precision. The bias is constant on orbits of output channels, or of output channels and pixels. In the
    second case the layer may depend on the position in the image as far as the symmetry allows.

    Args:
        action_in: How the group acts on the input: fields whose channels are permuted, up to signs.
        action_out: How the group acts on the output, on the same grid.
        kernel_size: The odd side of the square kernel. The input is padded to keep its size: with zeros, or
            periodically where the group contains translations.
        bias: False for no bias; True for one bias for each orbit of channels; "pixels" for one bias for each orbit of
            channels and pixels.
        mask: Which output channels may read which input channels, a boolean tensor of shape ``(C_out, C_in)`` that is
            constant on orbits; None for all.
        zero_init: Whether the layer starts at zero output. Otherwise white inputs of unit variance give outputs of unit
            variance at the start.

    Shape:
        input ``(..., C_in, H, W)``, output ``(..., C_out, H, W)``.

    Raises:
        TypeError: If an action is not an ImageAction.
        ValueError: If the kernel size is even, the actions are on different grids, the channels are not permuted up to
            signs, the bias is of an unknown kind, or the mask has another shape or is not constant on orbits.

    Example:
        >>> conv = EquivariantConv(ImageAction("D4", size=8), ImageAction("D4", 2, size=8, fields="regular"))
        >>> conv(torch.zeros(5, 1, 8, 8)).shape, conv.weight().shape, len(conv.orbit_weights)
        (torch.Size([5, 16, 8, 8]), torch.Size([16, 1, 3, 3]), 18)
    """

    _index: Tensor
    _sign: Tensor
    _bias_index: Tensor
    _bias_sign: Tensor

    def __init__(
        self,
        action_in: ImageAction,
        action_out: ImageAction,
        *,
        kernel_size: int = 3,
        bias: bool | Literal["pixels"] = True,
        mask: Tensor | None = None,
        zero_init: bool = False,
    ) -> None:
        super().__init__()
        _check(action_in, action_out, kernel_size)
        if bias not in (True, False, "pixels"):
            raise ValueError(f"expected bias True, False or 'pixels', got {bias!r}")
        self.action_in, self.action_out = action_in, action_out
        self.kernel_size, self.zero_init = kernel_size, zero_init
        shape = (action_out.channels, action_in.channels, kernel_size, kernel_size)
        offsets = action_in.kernel_permutations(kernel_size)[action_in.point_group.generators()]
        targets, signs, pairs = kernel_entries(action_in, action_out, offsets)
        index, sign = signed_orbits(targets, signs, _allowed(mask, shape, pairs))
        self.register_buffer("_index", index, persistent=False)
        self.register_buffer("_sign", sign.to(torch.get_default_dtype()).view(shape), persistent=False)
        self._has_signs = bool((sign != 1).any())
        self.orbit_weights = nn.Parameter(torch.empty(int(index.max()) + 1 if bool(sign.any()) else 0))
        self.orbit_biases: nn.Parameter | None = None
        if bias:
            images = coordinate_images(action_out) if bias == "pixels" else channel_images(action_out)
            index, sign = signed_orbits(*images)
            sign = sign.view(action_out.event_shape if bias == "pixels" else (-1,))
            self.register_buffer("_bias_index", index, persistent=False)
            self.register_buffer("_bias_sign", sign.to(torch.get_default_dtype()), persistent=False)
            self.orbit_biases = nn.Parameter(torch.empty(int(index.max()) + 1 if bool(sign.any()) else 0))
        self.reset_parameters()

    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new weights, or set them to zero if ``zero_init`` is set; the bias becomes zero."""
        with torch.no_grad():
            if self.orbit_biases is not None:
                self.orbit_biases.zero_()
            if self.zero_init:
                self.orbit_weights.zero_()
                return
            # white inputs: an output channel's variance is the sum of the squares of its live kernel entries
            fan_in = self._sign.abs().sum((1, 2, 3), keepdim=True).clamp(min=1.0).expand_as(self._sign).flatten()
            alive = self._sign.flatten() != 0
            scale = torch.ones_like(self.orbit_weights)
            scale[self._index[alive]] = fan_in[alive].rsqrt().to(scale)
            self.orbit_weights.normal_(generator=generator).mul_(scale)

    def weight(self) -> Tensor:
        """The kernel, of shape ``(C_out, C_in, k, k)``."""
        if not self._has_signs:  # as between regular fields: no product with a tensor of ones
            return self.orbit_weights.index_select(0, self._index).view(self._sign.shape)
        return spread(self.orbit_weights, self._index, self._sign)

    def assign_(self, kernel: Tensor) -> None:
        """Set the weights so that the kernel is the equivariant kernel nearest to ``kernel``.

        Args:
            kernel: Any kernel of shape ``(C_out, C_in, k, k)``.
        """
        with torch.no_grad():
            self.orbit_weights.copy_(tied_to(self.orbit_weights, kernel, self._index, self._sign))

    def _make_kernel(self) -> Tensor:
        return self.weight()

    def bias(self) -> Tensor | None:
        """The bias of each output channel ``(C_out,)``, or of each pixel of each channel ``(C_out, H, W)``, or None."""
        return None if self.orbit_biases is None else spread(self.orbit_biases, self._bias_index, self._bias_sign)

    def forward(self, x: Tensor) -> Tensor:
        self.action_in.check_event(x)
        batch, bias = x.shape[:-3], self.bias()
        flat = x.reshape(-1, *self.action_in.event_shape)
        each = bias if bias is None or bias.ndim == 1 else None
        y = convolve(flat, self.kernel(), padding=self.action_in.padding, bias=each)
        if bias is not None and each is None:
            y = y + bias
        return y.reshape(batch + self.action_out.event_shape)

    def extra_repr(self) -> str:
        size = f"{self.kernel_size}x{self.kernel_size}"
        return f"{self.action_in} -> {self.action_out}, {size}, {self.orbit_weights.numel()} weights"


def convolve(x: Tensor, kernel: Tensor, *, padding: str, bias: Tensor | None = None) -> Tensor:
    """The convolution of a batch of images that keeps their size.

    Args:
        x: Images, shape ``(n, C_in, H, W)``.
        kernel: The kernel, shape ``(C_out, C_in, k, k)`` with an odd k.
        padding: "zero" or "circular".
        bias: A bias for each output channel, or None.

    Example:
        >>> convolve(torch.ones(1, 1, 2, 2), torch.ones(1, 1, 3, 3), padding="circular").flatten().tolist()
        [9.0, 9.0, 9.0, 9.0]
    """
    reach = kernel.shape[-1] // 2
    if padding == "circular":
        x, reach = wrapped(x, reach), 0
    return functional.conv2d(x, kernel, bias, padding=reach)


def wrapped(x: Tensor, reach: int) -> Tensor:
    """Images on a periodic grid, with so many more pixels on each side.

    It is the circular padding of torch, which writes into an empty tensor: torch.func.linearize loses such writes.

    Args:
        x: Images, shape ``(..., H, W)``.
        reach: The number of pixels, at most H and W.

    Example:
        >>> wrapped(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), 1)[0].tolist()
        [4.0, 3.0, 4.0, 3.0]
    """
    for dim in (-1, -2) if reach else ():
        size = x.shape[dim]
        x = torch.cat([x.narrow(dim, size - reach, reach), x, x.narrow(dim, 0, reach)], dim)
    return x


def _check(action_in: ImageAction, action_out: ImageAction, kernel_size: int) -> None:
    for action in (action_in, action_out):
        require_image(action)
        if not action.is_signed_permutation:
            raise ValueError(f"expected fields whose channels are permuted up to signs, got {action}")
    if not action_in.shares_grid(action_out):
        raise ValueError(f"expected two actions on one grid, got {action_in} and {action_out}")
    if not isinstance(kernel_size, int) or kernel_size < 1 or kernel_size % 2 == 0:
        raise ValueError(f"expected an odd kernel_size, which has a center to rotate about, got {kernel_size!r}")
    if action_in.padding == "circular" and kernel_size // 2 > min(action_in.height, action_in.width):
        raise ValueError(f"expected a kernel_size that wraps around {action_in} at most once, got {kernel_size}")


def _allowed(mask: Tensor | None, shape: tuple[int, int, int, int], pairs: Tensor) -> Tensor:
    """The mask on every entry of the kernel, flattened."""
    if mask is None:
        return torch.ones(shape, dtype=torch.bool).flatten()
    if mask.dtype != torch.bool or mask.shape != shape[:2]:
        raise ValueError(f"expected a boolean mask of shape {shape[:2]}, got {mask.dtype} of shape {tuple(mask.shape)}")
    if bool((mask.flatten()[pairs] != mask).any()):
        raise ValueError("expected a mask that is constant on the orbits of (output channel, input channel)")
    return mask[:, :, None, None].expand(shape).flatten()
