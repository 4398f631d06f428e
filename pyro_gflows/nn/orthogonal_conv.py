"""LipschitzConv with free weights that are made nearly orthogonal before the bound is applied."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from pyro_gflows.nn.lipschitz_conv import LipschitzConv
from pyro_gflows.serialization.registry import registered

__all__ = ["AlmostOrthogonalConv", "PolarConv"]

_STEPS = 3


@registered
class AlmostOrthogonalConv(LipschitzConv):
    r"""A Lipschitz convolution whose channels are each scaled by what they overlap with, a bound for every channel.

    With the kernel's Gram matrix :math:`A = K^\top K` of all channels and shifts, channel j is divided by
    :math:`\sqrt{\sum_i |A_{ij}|}`: the norm is then at most 1 (Gershgorin), and 1 where the channels are orthogonal.
    Of the two sides of the kernel the one with fewer channels is scaled. Channels of one orbit overlap alike, so the
    kernel stays equivariant. A zero-padded convolution is a part of the full one, so the bound holds for it too.

    Arguments, shapes and errors as :class:`LipschitzConv`.

    Source: Almost-Orthogonal Layers for Efficient General-Purpose Lipschitz Networks, arXiv:2208.03160.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> action = ImageAction("D4", 2, size=8, fields="regular")
        >>> bool(AlmostOrthogonalConv(action, action, bound=0.9).lipschitz_bound() <= 0.9)
        True
    """

    def bounded(self, free: Tensor) -> Tensor:
        few_out = free.shape[0] < free.shape[1]
        kernel = free.transpose(0, 1) if few_out else free
        overlap = _gram(kernel).abs().sum((0, 2, 3))
        tiny = torch.finfo(free.dtype).tiny
        scale = self.bound_below(free.dtype) * overlap.clamp(min=tiny).rsqrt()
        kernel = kernel * scale[:, None, None]
        return kernel.transpose(0, 1) if few_out else kernel


@registered
class PolarConv(LipschitzConv):
    r"""A Lipschitz convolution whose singular values are drawn towards the bound, near the polar factor of its weights.

    From the free kernel at norm 1, three steps of :math:`K \leftarrow \tfrac32 K - \tfrac12 K K^\top K`, each cut
    back to the kernel's size, then divided by the norm: the iteration alone would end at an orthogonal map, the
    cut keeps it local, the division makes the bound hold. All are equivariant operations.

    Arguments, shapes and errors as :class:`LipschitzConv`.

    Example:
        >>> from pyro_gflows import ImageAction
        >>> action = ImageAction("D4", 2, size=8, fields="regular")
        >>> round(PolarConv(action, action, bound=0.9).lipschitz_bound().item(), 3)
        0.9
    """

    def bounded(self, free: Tensor) -> Tensor:
        tiny = torch.finfo(free.dtype).tiny
        kernel = free / self.norm(free).clamp(min=tiny)
        few_out = free.shape[0] < free.shape[1]
        kernel = kernel.transpose(0, 1) if few_out else kernel
        reach = self.kernel_size // 2
        for _ in range(_STEPS):
            gram = _gram(kernel)
            gram = gram[..., reach:-reach, reach:-reach] if reach else gram
            kernel = 1.5 * kernel - 0.5 * functional.conv2d(kernel, gram.transpose(0, 1), padding=reach)
        kernel = kernel.transpose(0, 1) if few_out else kernel
        return kernel * (self.bound_below(free.dtype) / self.norm(kernel).clamp(min=tiny))


def _gram(kernel: Tensor) -> Tensor:
    """The kernel of K^T K, of shape (C_in, C_in, 2 k - 1, 2 k - 1)."""
    columns = kernel.transpose(0, 1)
    return functional.conv2d(columns, columns, padding=kernel.shape[-1] - 1)
