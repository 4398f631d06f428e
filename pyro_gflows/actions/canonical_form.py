r"""Group elements that take events to a canonical form, which is the same event for a whole orbit.

Let w be a fixed random event, and h the element that maximizes :math:`\langle x, \rho(h)\,w \rangle`. For the event g x
the maximizing element is g h, so :math:`h^{-1} x` is the same for every event of an orbit. (Where h is not unique, two
maximizing elements differ by an element that leaves x as it is.)
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

__all__ = ["nearest_image", "nearest_shift", "reference_event"]

_AT_ONCE = 2**22


def reference_event(shape: torch.Size) -> Tensor:
    """The fixed random event w, float64, which is the same on every machine.

    Args:
        shape: The event shape.

    Example:
        >>> reference_event(torch.Size([3])).dtype
        torch.float64
    """
    return torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def nearest_image(x: Tensor, order: int, images: Callable[[Tensor], Tensor]) -> Tensor:
    r"""The element h that maximizes :math:`\langle x, \rho(h)\,w \rangle`, found by trying all elements.

    Args:
        x: Flattened events, shape ``batch + (numel,)``, float64.
        order: The number of elements of the group.
        images: A function that gives the images rho(h) w under some elements, shape ``(len(elements), numel)``. It is
            called with a part of the elements at a time.

    Example:
        >>> from pyro_gflows.actions import VectorAction
        >>> action, w = VectorAction.signs(2), torch.tensor([1.0, 2.0]).double()
        >>> nearest_image(torch.tensor([3.0, -1.0]).double(), 4, lambda elements: action.act_each(elements, w))
        tensor(1)
    """
    chunk = max(1, _AT_ONCE // max(x.numel(), x.shape[-1]))
    best, value = x.new_zeros(x.shape[:-1], dtype=torch.int64), x.new_full(x.shape[:-1], -torch.inf)
    for start in range(0, order, chunk):
        elements = torch.arange(start, min(start + chunk, order), device=x.device)
        found, place = (x @ images(elements).mT).max(-1)
        best, value = torch.where(found > value, start + place, best), torch.maximum(found, value)
    return best


def nearest_shift(x: Tensor, spectra: Tensor, *, step: int) -> Tensor:
    r"""The shift and the image of w that maximize the inner product with x, for shifts of a periodic grid.

    All shifts of one image are compared at once by a fast Fourier transform.

    Args:
        x: Events, shape ``batch + (C, H, W)``, float64.
        spectra: The conjugate Fourier transforms (``rfft2``) of the images of w, shape ``(images, C, H, W // 2 + 1)``.
        step: Shifts are by multiples of this number of pixels.

    Returns:
        The integer ``shift * images + image`` for each event, where shifts are counted row by row.

    Example:
        >>> w = torch.tensor([[[1.0, 0.0, 0.0]]]).double()
        >>> nearest_shift(torch.tensor([[[0.0, 0.0, 1.0]]]).double(), torch.fft.rfft2(w)[None].conj(), step=1)
        tensor(2)
    """
    size, count = x.shape[-2:], len(spectra)
    best, value = x.new_zeros(x.shape[:-3], dtype=torch.int64), x.new_full(x.shape[:-3], -torch.inf)
    if x.numel() == 0:  # some libraries refuse to transform an empty batch
        return best
    transformed = torch.fft.rfft2(x)
    for image, spectrum in enumerate(spectra):
        overlaps = torch.fft.irfft2((transformed * spectrum).sum(-3), s=size)[..., ::step, ::step]
        found, shift = overlaps.flatten(-2).max(-1)
        best = torch.where(found > value, shift * count + image, best)
        value = torch.maximum(found, value)
    return best
