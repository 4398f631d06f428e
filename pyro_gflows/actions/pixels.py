"""Permutations of the pixels of a grid by group elements, and their effect on images."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups.base import Group
from pyro_gflows.groups.wallpaper import WallpaperGroup, pixel_targets, point_group_of
from pyro_gflows.numerics.constants import rows_at

__all__ = ["gather_pixels", "pixel_sources", "pixels_of"]


def pixels_of(group: Group, elements: Tensor, size: tuple[int, int]) -> Tensor:
    """The pixel to which each element sends each pixel of a grid.

    Args:
        group: The group that acts on the grid.
        elements: Elements of the group.
        size: (height, width).

    Returns:
        Shape ``batch + (height * width,)``.

    Raises:
        ValueError: The group does not map this grid to itself.

    Example:
        >>> pixels_of(WallpaperGroup(2, 3), torch.tensor(1), (2, 3)).tolist()  # one column to the right
        [1, 2, 0, 4, 5, 3]
    """
    targets = pixel_targets(point_group_of(group), *size).to(elements.device)
    if not isinstance(group, WallpaperGroup):
        return rows_at(targets, elements)
    height, width = size
    if size != (group.height, group.width):
        raise ValueError(f"expected the {group.height} x {group.width} grid of {group}, got {height} x {width}")
    targets = rows_at(targets, group.project(elements))
    down, right = group.shift(elements)[..., None].unbind(-2)
    return (targets // width + down) % height * width + (targets % width + right) % width


def pixel_sources(group: Group, elements: Tensor, table: Tensor, size: tuple[int, int]) -> Tensor:
    """For each element, the pixel that it sends to each pixel.

    Args:
        group: The group that acts on the grid.
        elements: Elements of the group.
        table: The same for all elements of the point group, shape ``(|P|, height * width)``.
        size: (height, width).

    Returns:
        Shape ``batch + (height * width,)``.

    Example:
        >>> pixel_sources(WallpaperGroup(2, 3), torch.tensor(1), torch.arange(6)[None], (2, 3)).tolist()
        [2, 0, 1, 5, 3, 4]
    """
    if not isinstance(group, WallpaperGroup):
        return rows_at(table, elements)
    height, width = size
    down, right = group.shift(elements)[..., None].unbind(-2)
    rows = (torch.arange(height, device=elements.device) - down) % height
    columns = (torch.arange(width, device=elements.device) - right) % width
    unshifted = (rows[..., :, None] * width + columns[..., None, :]).flatten(-2)
    if len(table) == 1:
        return unshifted
    return table.flatten()[group.project(elements)[..., None] * table.shape[-1] + unshifted]


def gather_pixels(x: Tensor, channels: Tensor, pixels: Tensor) -> Tensor:
    """The images ``y[..., c, p] = x[..., channels[c], pixels[p]]``, where all batch shapes broadcast.

    Args:
        x: Images with flattened pixels, shape ``batch + (C, H * W)``.
        channels: Indices of channels, shape ``batch + (C,)``.
        pixels: Indices of pixels, shape ``batch + (H * W,)``.

    Example:
        >>> gather_pixels(torch.tensor([[1.0, 2.0]]), torch.tensor([0]), torch.tensor([1, 0])).tolist()
        [[2.0, 1.0]]
    """
    index = (channels[..., :, None] * x.shape[-1] + pixels[..., None, :]).flatten(-2)
    flat = x.flatten(-2)
    if index.ndim == 1:
        gathered = flat[..., index]
    else:
        # not torch.broadcast_shapes, whose first call imports for half a second
        batch = torch.broadcast_tensors(index[..., 0], flat[..., 0])[0].shape
        gathered = flat.expand(*batch, -1).gather(-1, index.expand(*batch, -1))
    return gathered.unflatten(-1, (channels.shape[-1], pixels.shape[-1]))
