"""Convolutions whose weights are made nearly orthogonal before the Lipschitz bound is applied."""

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
    r"""A Lipschitz convolution whose channels are each scaled by their overlap with the others.

    With the Gram matrix :math:`A = K^\top K` of all channels and shifts of the kernel, channel j is divided by
    :math:`\sqrt{\sum_i |A_{ij}|}`. The norm of the result is at most 1 (by Gershgorin's theorem), and it is 1 if the
    channels are orthogonal. The input channels are scaled, or the output channels if there are fewer of these. Channels
    in one orbit of the group have equal overlaps, so the kernel stays equivariant. A zero-padded convolution is a part
    of the full one, so the bound holds for it too.

    The arguments, shapes and errors are those of :class:`LipschitzConv`.

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
    r"""A Lipschitz convolution whose singular values are all close to the bound.

    The kernel is near the polar factor of its unconstrained weights, which is the orthogonal map nearest to them. From
    the kernel scaled to norm 1, three steps of :math:`K \leftarrow \tfrac32 K - \tfrac12 K K^\top K` are taken, each
    cut back to the size of the kernel, and the result is divided by its norm. Without the cut the iteration would
    converge to an orthogonal map; the cut keeps the kernel local, and the division makes the bound hold. All these
    operations are equivariant.

    The arguments, shapes and errors are those of :class:`LipschitzConv`.

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
    """The kernel of K^T K, of shape ``(C_in, C_in, 2 k - 1, 2 k - 1)``."""
    columns = kernel.transpose(0, 1)
    return functional.conv2d(columns, columns, padding=kernel.shape[-1] - 1)
