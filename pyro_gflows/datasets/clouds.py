"""Images as point clouds: sets of points drawn from the intensities of the pixels."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["point_clouds"]


def point_clouds(images: Tensor, *, points: int = 50, seed: int | torch.Generator = 0) -> Tensor:
    r"""Draws a set of points from every image: each a pixel drawn by its intensity, and a uniform place within it.

    It turns a set of images into data whose order means nothing, for flows on :class:`~pyro_gflows.RowsAction`. The
    points of an image are independent, with the density

    .. math:: p(x, y) = I_{\lfloor y \rfloor, \lfloor x \rfloor} \Big/ \sum_{ij} I_{ij}

    with respect to Lebesgue measure on the W x H rectangle, where pixels have sides of length 1. The uniform density
    there scores :math:`-\log(W H)` nats a point; on 28 x 28 pixels this is -6.664.

    Args:
        images: Intensities, finite and not negative, shape ``(n, H, W)`` or ``(n, 1, H, W)``.
        points: The number of points in each set.
        seed: The seed, or the random generator to draw from. The same seed gives the same sets.

    Returns:
        The points (x, y), with x = column + noise in [0, W) and y = row + noise in [0, H), in the default dtype, shape
        ``(n, points, 2)``.

    Raises:
        ValueError: The images have another shape, an intensity is negative or not finite, an image is black, or
            ``points`` is below 1.

    Source: Towards a Neural Statistician, arXiv:1606.02185.

    Example:
        >>> images = torch.zeros(3, 4, 5)
        >>> images[:, 1, 2] = 1.0
        >>> clouds = point_clouds(images, points=7)
        >>> clouds.shape, clouds.floor().unique(dim=1)[0].tolist()
        (torch.Size([3, 7, 2]), [[2.0, 1.0]])
    """
    if images.ndim == 4 and images.shape[1] == 1:
        images = images.squeeze(1)
    if images.ndim != 3 or not images.numel():
        raise ValueError(f"expected images of shape (n, H, W) or (n, 1, H, W), got {tuple(images.shape)}")
    if points < 1:
        raise ValueError(f"expected points >= 1, got {points}")
    weights = images.flatten(1).double()
    if not weights.isfinite().all() or bool((weights < 0).any()):
        raise ValueError("expected finite intensities of at least 0, got an image with NaN, inf or a negative one")
    black = weights.sum(1) == 0
    if black.any():
        raise ValueError(
            f"expected images with light in them, got {int(black.sum())} black ones, the first at index "
            f"{int(black.nonzero()[0])}; leave them out"
        )
    generator = seed
    if isinstance(generator, int):
        generator = torch.Generator(images.device).manual_seed(generator)
    pixels = torch.multinomial(weights, points, replacement=True, generator=generator)
    width = images.shape[-1]
    corners = torch.stack([pixels % width, pixels // width], -1)
    noise = torch.rand(corners.shape, generator=generator, dtype=torch.float64, device=images.device)
    found = (corners + noise).to(torch.get_default_dtype())
    # rounding may reach the next pixel, which the last pixel does not have
    return torch.minimum(found, _below(corners + 1, found))


def _below(edges: Tensor, like: Tensor) -> Tensor:
    """The largest floating-point values below the edges of pixels."""
    return torch.nextafter(edges.to(like), torch.zeros_like(like))
