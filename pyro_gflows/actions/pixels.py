"""How elements of a group permute pixels, and images with them: computed for the elements that are asked for."""

from __future__ import annotations

import torch
from torch import Tensor

from pyro_gflows.groups.base import Group
from pyro_gflows.groups.wallpaper import WallpaperGroup, pixel_targets, point_group_of
from pyro_gflows.numerics.constants import rows_at

__all__ = ["gather_pixels", "pixel_sources", "pixels_of"]


def pixels_of(group: Group, elements: Tensor, size: tuple[int, int]) -> Tensor:
    """Where elements send each pixel of a grid (height, width), shape ``batch + (height * width,)``.

    Raises:
        ValueError: the group does not map this grid to itself.

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
    """From which pixel each pixel of the image under each element comes, shape ``batch + (height * width,)``.

    Args:
        group: acts on the pixels.
        elements: of the group.
        table: the same for the elements of its point group, shape ``(|P|, height * width)``.
        size: (height, width).
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
    """``y[..., c, p] = x[..., channels[c], pixels[p]]``; all batch shapes broadcast."""
    index = (channels[..., :, None] * x.shape[-1] + pixels[..., None, :]).flatten(-2)
    flat = x.flatten(-2)
    if index.ndim == 1:
        moved = flat[..., index]
    else:
        # not torch.broadcast_shapes, whose first call imports for half a second
        batch = torch.broadcast_tensors(index[..., 0], flat[..., 0])[0].shape
        moved = flat.expand(*batch, -1).gather(-1, index.expand(*batch, -1))
    return moved.unflatten(-1, (channels.shape[-1], pixels.shape[-1]))
