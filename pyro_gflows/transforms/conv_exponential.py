"""GConvExponential: the exponential of an equivariant convolution, a linear map that mixes channels and neighbors."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from pyro_gflows.actions import ImageAction
from pyro_gflows.actions.requirements import require_image
from pyro_gflows.nn import EquivariantConv
from pyro_gflows.nn.conv import convolve
from pyro_gflows.numerics.exponential_series import apply_exponential, series_length
from pyro_gflows.numerics.spectral import sampled_conv_norm_bound
from pyro_gflows.numerics.transforms_active import largest
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.bounded_growth import growth_scale
from pyro_gflows.transforms.exponential import ExponentialTransform

__all__ = ["GConvExponential"]


@registered
class GConvExponential(ExponentialTransform):
    r"""The exponential of an equivariant convolution: a linear map of images that mixes channels and pixels.

    It is an invertible convolution with an exact log-det. Put it where :class:`GLinear` (an invertible 1x1 convolution)
    is, if neighboring pixels should be mixed as well.

    .. math:: y = e^K x + b, \qquad \log|\det J| = \mathrm{tr}\,K = H W\,\mathrm{tr}\,k_0

    K is the convolution with an equivariant kernel k, padded with zeros, or periodically where the group contains
    translations, and k_0 is the matrix at the center of the kernel; on a periodic grid smaller than the kernel, the sum
    of the matrices at all offsets that are multiples of the size of the grid. The map is bijective because an
    exponential is: the inverse is :math:`e^{-K} (y - b)`. It is equivariant because K is and because b is a vector that
    no group element changes, and nothing non-linear follows.

    The exponential is applied by a series, with scaling. The number of terms follows from an upper bound of the norm of
    K (from the symbol of the kernel, its Fourier transform), such that the error is at most
    :math:`\epsilon\,e^{\max(\mu, 0)} |x|` with the rounding unit :math:`\epsilon` of the dtype (the proof is beside
    ``truncation_error`` in ``numerics/exponential_series.py``). Here :math:`\mu` is the largest eigenvalue of the
    symmetric part of K, which says how fast :math:`e^{tK} x` can grow. Since rounding is amplified by at most
    :math:`e^{\mu(K) + \mu(-K)}`, the kernel is scaled such that this number is bounded; K may have a large norm all the
    same, as a rotation has. A call takes some 10 to 30 convolutions at norms up to 3, the fewer in float32, and 5 to 9
    for each unit of a larger norm. Training stores an image for each of them; image flows with ``memory="recompute"``
    store one for each step. The norm is read by the program, so that a GPU waits once in a call. On a periodic grid
    :class:`GSpectralConv` is the same map at less cost.

    Args:
        action: How the group acts on images: fields whose channels are permuted, up to signs.
        kernel_size: The odd side of the kernel.
        bias: False for no bias; True for one bias for each orbit of channels; "pixels" for one bias for each orbit of
            channels and pixels.
        max_log_scale: Smooth upper bound s of :math:`\mu(K)` and :math:`\mu(-K)`: no image grows by more than the
            factor :math:`e^s`, or shrinks by more than :math:`e^{-s}`, up to the bias.

    Raises:
        TypeError: ``action`` is not an ImageAction.
        ValueError: ``max_log_scale`` is not positive and finite, or as for
            :class:`~pyro_gflows.nn.EquivariantConv`; in a call, the norm of K is above 1000.

    Source: The Convolution Exponential and Generalized Sylvester Flows, arXiv:2006.01910; Equivariant Finite
    Normalizing Flows, arXiv:2110.08649.

    Example:
        >>> layer = GConvExponential(ImageAction("D4", 2, size=8, fields="regular"))
        >>> x = torch.randn(5, 16, 8, 8)
        >>> y, log_det = layer.call_and_ladj(x)  # the identity before training
        >>> bool(torch.equal(x, y)), log_det.shape, layer.conv.orbit_weights.shape
        (True, torch.Size([5]), torch.Size([288]))
    """

    def __init__(
        self,
        action: ImageAction,
        *,
        kernel_size: int = 3,
        bias: bool | Literal["pixels"] = True,
        max_log_scale: float = 3.0,
    ) -> None:
        super().__init__(action)
        self._images = require_image(action)
        self.max_log_scale = max_log_scale
        growth_scale(torch.zeros(()), max_log_scale)  # raises where the bound is not positive and finite
        self.conv = EquivariantConv(action, action, kernel_size=kernel_size, bias=bias, zero_init=True)

    def kernel(self) -> Tensor:
        """The kernel k, scaled to the bound, of shape ``(C, C, kernel_size, kernel_size)``.

        Example:
            >>> GConvExponential(ImageAction("C4", 3, size=4)).kernel().shape
            torch.Size([3, 3, 3, 3])
        """
        free = self.conv.kernel()
        symmetric = (free + free.transpose(0, 1).flip(2, 3)) / 2
        return free * growth_scale(self._norm(symmetric), self.max_log_scale)

    def norm(self) -> float:
        """An upper bound of the norm of the convolution K, which sets the number of terms of the series.

        Example:
            >>> GConvExponential(ImageAction("C4", 3, size=4)).norm()  # of zero weights, before training
            0.0
        """
        with torch.no_grad():
            return largest(self._norm(self.kernel()))

    def _norm(self, kernel: Tensor) -> Tensor:
        """An upper bound of the norm of a convolution; of a symmetric one, of the moduli of its eigenvalues."""
        size = height, width = self._images.height, self._images.width
        if self._images.padding == "circular":
            return sampled_conv_norm_bound(kernel, size, padding="circular")
        down, right = (max(kernel.shape[-1] // 2 - side + 1, 0) for side in (height, width))  # what no pixel reaches
        reached = kernel[..., down : kernel.shape[-1] - down, right : kernel.shape[-1] - right]
        return sampled_conv_norm_bound(reached, size, padding="zero")

    def _trace(self, kernel: Tensor) -> Tensor:
        traces, reach = kernel.diagonal(dim1=0, dim2=1).sum(-1), kernel.shape[-1] // 2
        height, width = self._images.height, self._images.width
        if self._images.padding == "zero":
            center = traces[reach, reach]
        else:  # every offset that is a multiple of the grid
            center = traces[reach % height :: height, reach % width :: width].sum()
        return height * width * center

    def _apply_exponential(self, x: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        kernel, bias = sign * self.kernel().to(x), self.conv.bias()
        shift = 0.0 if bias is None else (bias if bias.ndim > 1 else bias[:, None, None]).to(x)
        with torch.no_grad():
            norm = largest(self._norm(kernel))  # of all kernels, where torch.func gives several
        steps, terms = series_length(norm, torch.finfo(x.dtype).eps)
        start = x if sign > 0 else x - shift
        image = apply_exponential(
            lambda v, factor: convolve(v, factor * kernel, padding=self._images.padding),
            start.reshape(-1, *self._images.event_shape),
            steps=steps,
            terms=terms,
        ).reshape(x.shape)
        return image + shift if sign > 0 else image, self._trace(kernel).expand(x.shape[:-3])
