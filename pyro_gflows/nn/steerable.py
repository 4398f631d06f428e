"""SteerableConv: convolutions between fields of any group of rotations and reflections of the plane, on pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from pyro_gflows.groups.continuous import O2, SO2
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, Group, PlanarGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.nn.basis import FixedBasis
from pyro_gflows.nn.filters import steerable_filters
from pyro_gflows.nn.kernel import KernelLayer
from pyro_gflows.serialization.registry import registered

__all__ = ["SteerableConv", "sampled_group"]

_BAND, _SAMPLES = 3, 16  # the highest frequency of a field of SO(2), and at how many rotations the field is sampled
_KINDS = ("regular", "trivial")


def sampled_group(group: Group | str) -> tuple[CyclicGroup | DihedralGroup, int | None]:
    """The finite group whose elements index the channels of a regular field, and the band limit of the fields.

    For C_n and D_n this is the group itself, without a band limit. Fields of SO(2) and O(2) are sampled at 16 rotations
    (and 16 reflections), with frequencies up to 3.

    Args:
        group: C_n, D_n, SO(2) or O(2).

    Raises:
        ValueError: If the group is not one of rotations and reflections of the plane.

    Example:
        >>> sampled_group("O(2)")
        (D16, 3)
    """
    parsed = parse_group(group)
    if isinstance(parsed, SO2):
        return (DihedralGroup if isinstance(parsed, O2) else CyclicGroup)(_SAMPLES), _BAND
    if not isinstance(parsed, CyclicGroup | DihedralGroup):
        raise ValueError(f"expected a group of the plane, C_n, D_n, SO(2) or O(2), got {parsed}")
    return parsed, None


@registered
class SteerableConv(KernelLayer):
    r"""A convolution between scalar or regular fields of a group G of the plane, approximately equivariant on pixels.

    A scalar field has one channel; a regular field has one channel for each element of G, which G permutes while it
    acts on the plane. With unconstrained filters :math:`f_k`, one for each element k of G, the map

    .. math:: y_g(p) = \sum_h \int f_{h^{-1} g}(h^{-1} q)\; x_h(p + q)\, dq

    is the most general equivariant convolution from one regular field to another; for a scalar field there is one h (or
    g) and one filter. The filters are combinations of escnn's steerable filters (Gaussian rings with circular
    harmonics, band-limited), so that their rotated copies are exact too. If G takes the pixel grid to itself, they are
    arbitrary kernels of pixels. On pixels, the map is exactly equivariant under the subgroup of G that takes the grid
    to itself, and approximately, for smooth images, under the rest of G.

    Under SO(2) and O(2) a regular field is a function on the group with frequencies up to 3, which is stored as its
    values at 16 rotations (and 16 reflections). Every convolution stays within these frequencies.

    Args:
        group: The group G, one of C_n, D_n, SO(2) and O(2).
        copies_in: The number of fields of the input.
        copies_out: The number of fields of the output.
        fields_in: The kind of fields of the input, "regular" or "trivial" (scalar).
        fields_out: The kind of fields of the output, "regular" or "trivial" (scalar).
        kernel_size: The odd side of the kernel; the input is padded with zeros to keep its size.
        bias: Whether each field of the output has a bias.

    Shape:
        input ``(..., C_in, H, W)``, output ``(..., C_out, H, W)``, of any H and W.

    Raises:
        ImportError: If G does not take the grid to itself, so that escnn is needed, and escnn is not installed.
        ValueError: If the group or the kind of fields is another one, the kernel size is even, or there are no fields.

    Source: General E(2)-Equivariant Steerable CNNs, arXiv:1911.08251.

    Example:
        >>> lift = SteerableConv("C4", 1, 2, fields_in="trivial", kernel_size=3)
        >>> lift(torch.zeros(5, 1, 8, 8)).shape, lift.coefficients.shape
        (torch.Size([5, 8, 8, 8]), torch.Size([2, 1, 1, 9]))
    """

    _pairs: Tensor

    def __init__(
        self,
        group: Group | str,
        copies_in: int,
        copies_out: int,
        *,
        fields_in: str = "regular",
        fields_out: str = "regular",
        kernel_size: int = 5,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if fields_in not in _KINDS or fields_out not in _KINDS:
            raise ValueError(f"expected fields among {_KINDS}, got {fields_in!r} and {fields_out!r}")
        if copies_in < 1 or copies_out < 1:
            raise ValueError(f"expected at least one field on either side, got {copies_in} and {copies_out}")
        self.group, (sampled, band) = parse_group(group), sampled_group(group)
        self.copies_in, self.copies_out, self.kernel_size = copies_in, copies_out, kernel_size
        self.fields_in, self.fields_out = fields_in, fields_out
        self.filters = FixedBasis(steerable_filters(sampled, kernel_size))
        self.band_limit = None if band is None else FixedBasis(_band_limit(sampled, band))
        elements = sampled.elements()
        self._samples = sampled.order
        between = sampled.compose(sampled.inverse(elements), elements[:, None])  # [g, h] -> h^-1 g
        pairs = between * sampled.order + elements  # [g, h] -> where the pair (h^-1 g, h) stands among all pairs
        self.register_buffer("_pairs", pairs.flatten(), persistent=False)
        filters = sampled.order if self._both else 1
        self.coefficients = nn.Parameter(torch.empty(copies_out, copies_in, filters, self.filters.value.shape[1]))
        self.biases = nn.Parameter(torch.zeros(copies_out)) if bias else None
        self.reset_parameters()

    @property
    def _both(self) -> bool:
        return self.fields_in == self.fields_out == "regular"

    @torch.no_grad()
    def reset_parameters(self, generator: torch.Generator | None = None) -> None:
        """Draw new coefficients that preserve the unit variance of white inputs, and set the bias to zero."""
        channels_in = self.copies_in * (self._samples if self.fields_in == "regular" else 1)
        fan_in: float = channels_in * self.filters.value.shape[1]
        if self.band_limit is not None and self.fields_out == "regular":
            fan_in *= float(self.band_limit.value[0].square().sum())  # the share of the variance within the band limit
        self.coefficients.normal_(generator=generator).mul_(fan_in**-0.5)
        if self.biases is not None:
            self.biases.zero_()

    def _make_kernel(self) -> Tensor:
        filters = self.filters(self.coefficients)  # (h, f, p)
        if self._both:
            # one product of matrices: (o, i, k, f) by (f, h, p); then the pairs (k, h) = (h^-1 g, h) for each (g, h)
            rotated = self.coefficients @ filters.transpose(0, 1).flatten(1)
            rotated = rotated.unflatten(-1, (self._samples, -1)).flatten(2, 3).index_select(2, self._pairs)
            weight = rotated.unflatten(2, (self._samples, -1)).transpose(1, 2)  # (o, g, i, h, p)
        else:
            weight = torch.einsum("oif,hfp->ohip", self.coefficients.squeeze(2), filters)
            weight = weight.unsqueeze(3) if self.fields_out == "regular" else weight.transpose(1, 2).unsqueeze(1)
        if self.band_limit is not None:
            smooth = self.band_limit(weight)
            if self.fields_out == "regular":
                weight = torch.einsum("ab,obihp->oaihp", smooth, weight)
            if self.fields_in == "regular":
                weight = torch.einsum("ab,ogibp->ogiap", smooth, weight)
        return weight.flatten(2, 3).flatten(0, 1).unflatten(-1, (self.kernel_size, self.kernel_size))

    def forward(self, x: Tensor) -> Tensor:
        kernel = self.kernel()
        channels_in, channels_out = kernel.shape[1], kernel.shape[0]
        if x.ndim < 3 or x.shape[-3] != channels_in:
            raise ValueError(f"expected x of shape (..., {channels_in}, H, W) for {self}, got {tuple(x.shape)}")
        bias = None if self.biases is None else self.biases.repeat_interleave(channels_out // self.copies_out)
        y = functional.conv2d(x.reshape(-1, *x.shape[-3:]), kernel, bias, padding=self.kernel_size // 2)
        return y.reshape(*x.shape[:-3], channels_out, *x.shape[-2:])

    def extra_repr(self) -> str:
        size = f"{self.kernel_size}x{self.kernel_size}"
        sides = f"{self.copies_in} {self.fields_in} -> {self.copies_out} {self.fields_out}"
        return f"{self.group}: {sides}, {size}, {self.coefficients.numel()} coefficients"


def _band_limit(group: PlanarGroup, band: int) -> Tensor:
    """The projection of functions on C_n or D_n on frequencies up to ``band``, which commutes with the group."""
    count = group.n
    angle = 2 * math.pi * torch.arange(count, dtype=torch.float64) / count
    kernel = torch.zeros(group.order, dtype=torch.float64)
    kernel[:count] = (1 + 2 * sum((k * angle).cos() for k in range(1, band + 1))) / count
    elements = group.elements()
    return kernel[group.compose(group.inverse(elements)[:, None], elements)]  # of h^-1 g: entry [h, g], and symmetric
