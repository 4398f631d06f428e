"""GSpectralConv: an invertible convolution on a periodic grid, by the exponential of its Fourier symbol."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.actions import ImageAction
from pyro_gflows.nn.torus_kernel import TorusKernel, symbol_of
from pyro_gflows.numerics.symbol_exponential import growth_bound, many_exponentials
from pyro_gflows.serialization.registry import registered
from pyro_gflows.transforms.bounded_growth import growth_scale
from pyro_gflows.transforms.exponential import ExponentialTransform
from pyro_gflows.transforms.symbols import kernel_with_symbol

__all__ = ["GSpectralConv"]

_ENTRIES = 2**19  # the number of Fourier coefficients of the images that a CPU transforms at once


@registered
class GSpectralConv(ExponentialTransform):
    r"""An invertible convolution on a periodic grid, whose Fourier symbol is the exponential of a free one.

    It mixes channels and pixels up to the whole grid in one layer, with an exact log-det and a cost that does not
    depend on the size of the kernel.

    .. math:: \hat y(k) = e^{A(k)}\,\hat x(k), \qquad \log|\det J| = \sum_k \mathrm{Re}\,\mathrm{tr}\,A(k)
        = H W\,\mathrm{tr}\,a(0)

    Here :math:`\hat x(k)` are the Fourier coefficients of the C channels at the frequency k, and A is the Fourier
    transform (symbol) of a real kernel a on the offsets of the grid. A convolution is invertible if and only if its
    symbol is singular at no frequency, and :math:`e^{A(k)}` is never singular. The inverse multiplies by
    :math:`e^{-A(k)}`. The kernel a has one weight for each orbit of entries under the point group, as an
    :class:`~pyro_gflows.nn.EquivariantConv` has. Hence the symbol satisfies
    :math:`A(g k) = \rho(g)\,A(k)\,\rho(g)^{-1}` for each rotation or reflection g, and the layer is equivariant, under
    all shifts of the periodic grid as well. So it suits images that are periodic; on other images it joins opposite
    edges, but is equally exact and equally equivariant, since each of these groups maps the periodic grid to itself.

    With the same kernel, it is the same map as a :class:`GConvExponential` on the periodic grid, at less cost: two
    Fourier transforms and a product of matrices for each frequency, whatever the support, instead of some 15 or more
    convolutions whose cost grows with the support. The other layer is the one for images whose opposite edges should
    not be joined, since a convolution that is padded with zeros has no symbol. ``python -m benchmarks.linear_layers``
    measures both. The norm of the symbol is read by the program, so that a GPU waits once in a call.

    Args:
        action: How the group acts on images: fields whose channels are permuted, up to signs.
        support: The odd side of the square of offsets at which the kernel a may be nonzero, which sets the number of
            weights; None for all offsets of the grid.
        max_log_scale: Smooth upper bound s of the growth: no image grows by more than the factor :math:`e^s`,
            or shrinks by more than :math:`e^{-s}`.

    Raises:
        TypeError: ``action`` is not an ImageAction.
        ValueError: The support is even or not positive, ``max_log_scale`` is not positive and finite, or channels are
            not permuted up to signs.

    Source: Equivariant Finite Normalizing Flows, arXiv:2110.08649 (equation 17); Emerging Convolutions,
    arXiv:1901.11137 (periodic convolutions in the Fourier domain); The Convolution Exponential, arXiv:2006.01910.

    Example:
        >>> layer = GSpectralConv(ImageAction.translations(2, size=8, point_group="D4"), support=5)
        >>> layer
        GSpectralConv(
          ImageAction(Z8xZ8:D4 on 2 x 8 x 8: 2 x trivial), exact log-det
          (generator): TorusKernel(ImageAction(Z8xZ8:D4 on 2 x 8 x 8: 2 x trivial), 5x5, 24 weights)
        )
    """

    def __init__(self, action: ImageAction, *, support: int | None = None, max_log_scale: float = 3.0) -> None:
        super().__init__(action)
        growth_scale(torch.zeros(()), max_log_scale)  # raises where the bound is not positive and finite
        self.max_log_scale = max_log_scale
        self.generator = TorusKernel(action, support=support)

    @classmethod
    def from_symbol(cls, action: ImageAction, symbol: Tensor, *, max_log_scale: float | None = None) -> GSpectralConv:
        r"""The layer whose map before training has a given symbol: :math:`\hat y(k) = S(k)\,\hat x(k)`.

        The kernel a of the layer has all offsets.

        Args:
            action: How the group acts on images.
            symbol: S, shape ``(H, W, C, C)``, at all frequencies (0, 0), (0, 1), .... With a kernel s of the map
                :math:`y(p) = \sum_q s(q)\,x(p + q)`, it is :math:`\sum_q s(q)\,e^{2 \pi i (k_1 q_1/H + k_2 q_2/W)}`.
            max_log_scale: The bound of the layer; by default 3, or twice the growth of the map if that is more.

        Raises:
            ValueError: The symbol is singular or has a negative eigenvalue at a frequency, which the error names; it is
                not that of a real or of an equivariant kernel; it grows faster than ``max_log_scale``; or its shape is
                another one.

        Example:
            >>> action = ImageAction.translations(size=4, point_group="D4")
            >>> cosines = torch.cos(torch.arange(4) * torch.pi / 2)
            >>> symbol = 1.5 + 0.5 * (cosines[:, None] + cosines)  # of a blur: 1.5 times x plus 1/4 of each neighbor
            >>> layer = GSpectralConv.from_symbol(action, symbol[..., None, None])
            >>> layer(torch.eye(16).view(16, 1, 4, 4))[0, 0, 0].detach().numpy().round(3).tolist()
            [1.5, 0.25, 0.0, 0.25]
        """
        layer = cls(action, max_log_scale=1.0)
        layer.to(torch.float64 if symbol.dtype in (torch.complex128, torch.float64) else torch.float32)
        kernel = kernel_with_symbol(layer.generator, symbol)
        growth = float(growth_bound(symbol_of(kernel)))
        bound = max(3.0, 2 * growth) if max_log_scale is None else max_log_scale
        if growth >= bound:
            raise ValueError(f"expected a symbol of a growth below max_log_scale = {bound:g}, got {growth:.3g}")
        if bound != 1.0:
            layer = cls(action, max_log_scale=bound).to(layer.generator.orbit_weights.dtype)
        layer.generator.assign_(kernel / (1 - (growth / bound) ** 2) ** 0.5)
        return layer

    def kernel(self) -> Tensor:
        """The kernel a, scaled to the bound, of shape ``(C, C, H, W)``, with the offset 0 at the place (0, 0).

        Example:
            >>> GSpectralConv(ImageAction("C4", 3, size=4)).kernel().shape
            torch.Size([3, 3, 4, 4])
        """
        free = self.generator.kernel()
        return free * growth_scale(growth_bound(symbol_of(free)), self.max_log_scale)

    def symbol(self) -> Tensor:
        r"""The symbol :math:`e^{A(k)}` of the map at all frequencies, of shape ``(H, W, C, C)``.

        Example:
            >>> GSpectralConv(ImageAction("C4", 3, size=4)).symbol().shape
            torch.Size([4, 4, 3, 3])
        """
        symbol = torch.fft.fft2(self.kernel()).permute(2, 3, 0, 1).conj().resolve_conj().contiguous()
        return many_exponentials(symbol)

    def _apply_exponential(self, x: Tensor, sign: int) -> tuple[Tensor, Tensor]:
        free = self.generator.kernel().to(x)
        symbol = symbol_of(free)
        scale = sign * growth_scale(growth_bound(symbol), self.max_log_scale)
        log_det = (scale * free[..., 0, 0].trace() * free[0, 0].numel()).expand(x.shape[:-3])
        if not x.numel():  # the Fourier transform refuses a batch without images
            return x.clone(), log_det
        exponential = many_exponentials(scale * symbol)
        flat = x.reshape(-1, *x.shape[-3:])
        # a CPU is twice as fast on parts that its cache holds; on other devices, many small parts would be slower
        most = max(1, _ENTRIES // exponential[..., 0].numel()) if x.device.type == "cpu" else len(flat)
        images = [_multiply(exponential, part) for part in flat.split(most)]
        return (torch.cat(images) if len(images) > 1 else images[0]).reshape(x.shape), log_det


def _multiply(symbol: Tensor, x: Tensor) -> Tensor:
    """The images whose Fourier coefficients are the symbol times those of x, shape ``(n, C, H, W)``."""
    columns = torch.fft.rfft2(x).permute(2, 3, 1, 0).contiguous()  # at each frequency, one for each image
    return torch.fft.irfft2((symbol @ columns).permute(3, 2, 0, 1).contiguous(), s=x.shape[-2:])
