r"""Elements that take events to a canonical form, the same event for the whole orbit.

Let w be a fixed random event, and h the element that maximizes :math:`\langle x, \rho(h)\,w \rangle`. For g x in place
of x it is g h, so :math:`h^{-1} x` is the same for every event of an orbit. (Where h is not unique, two of them differ
by an element that leaves x alone.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["nearest_image", "nearest_shift", "reference_event"]

_AT_ONCE = 2**22


def reference_event(shape: torch.Size) -> Tensor:
    """The event w, float64: the same one on every machine."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def nearest_image(x: Tensor, order: int, images: Callable[[Tensor], Tensor]) -> Tensor:
    r"""The element h that maximizes :math:`\langle x, \rho(h)\,w \rangle`, out of all.

    Args:
        x: flattened events, shape ``batch + (numel,)``, float64.
        order: how many elements there are.
        images: rho(h) w of some elements, shape ``(len(elements), numel)``; asked for a part of the elements at a time.
    """
    chunk = max(1, _AT_ONCE // max(x.numel(), x.shape[-1]))
    best, value = x.new_zeros(x.shape[:-1], dtype=torch.int64), x.new_full(x.shape[:-1], -torch.inf)
    for start in range(0, order, chunk):
        elements = torch.arange(start, min(start + chunk, order), device=x.device)
        found, place = (x @ images(elements).mT).max(-1)
        best, value = torch.where(found > value, start + place, best), torch.maximum(found, value)
    return best


def nearest_shift(x: Tensor, spectra: Tensor, *, step: int) -> Tensor:
    r"""The same for the shifts of a periodic grid and some images of w: all shifts of one image by a Fourier transform.

    Args:
        x: events, shape ``batch + (C, H, W)``, float64.
        spectra: the conjugate Fourier transforms (``rfft2``) of the images of w, shape ``(images, C, H, W // 2 + 1)``.
        step: shifts are by multiples of this number of pixels.

    Returns:
        ``shift * images + image``, where shifts are counted row by row.
    """
    size, count = x.shape[-2:], len(spectra)
    best, value = x.new_zeros(x.shape[:-3], dtype=torch.int64), x.new_full(x.shape[:-3], -torch.inf)
    if x.numel() == 0:  # of which some libraries refuse the transform
        return best
    transformed = torch.fft.rfft2(x)
    for image, spectrum in enumerate(spectra):
        overlaps = torch.fft.irfft2((transformed * spectrum).sum(-3), s=size)[..., ::step, ::step]
        found, shift = overlaps.flatten(-2).max(-1)
        best = torch.where(found > value, shift * count + image, best)
        value = torch.maximum(found, value)
    return best
