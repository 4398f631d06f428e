"""MaskSplit: the pixels of an image in two sets, each of which every group element maps to itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.image import ImageAction
from pyro_gflows.actions.splits.base import Split
from pyro_gflows.groups.wallpaper import WallpaperGroup
from pyro_gflows.numerics.constants import kept_in
from pyro_gflows.serialization.registry import registered

__all__ = ["MaskSplit", "checkerboard_split", "mirrored_checkerboard", "plain_checkerboard_split"]


@registered
class MaskSplit(Split):
    r"""A split of images by a mask of pixels, :math:`x_1 = m \odot x` and :math:`x_2 = (1 - m) \odot x`.

    Both parts are images of full size on which the group acts as on the whole image, and they add up to it. A pixel
    that is not a part's own is 0 there, and ``restrict`` makes it 0.

    Args:
        action: How the group acts on images.
        mask: A boolean mask, shape (H, W), which the group does not change; True marks the first part.

    Raises:
        TypeError: The action is not an ImageAction, or the mask is not boolean.
        ValueError: The mask has another shape, has a single value, or is changed by a group element.

    Example:
        >>> mask = torch.tensor([[True, False], [False, True]])
        >>> first, second = MaskSplit(ImageAction("C2", size=2), mask).split(torch.ones(1, 2, 2))
        >>> first.tolist(), second.tolist()
        ([[[1.0, 0.0], [0.0, 1.0]]], [[[0.0, 1.0], [1.0, 0.0]]])
    """

    def __init__(self, action: ImageAction, mask: Tensor) -> None:
        if not isinstance(action, ImageAction):
            raise TypeError(f"expected an ImageAction to split by a mask of pixels, got {action}")
        if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
            got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
            raise TypeError(f"expected a boolean mask, got {got}")
        if mask.shape != (action.height, action.width):
            raise ValueError(f"expected a mask of shape {(action.height, action.width)}, got {tuple(mask.shape)}")
        if bool(mask.all()) or not bool(mask.any()):
            raise ValueError(f"the mask is {bool(mask.all())} everywhere, so one part of the split is empty")
        generators = action.generators()
        images = mask.flatten()[action.grid_permutations(elements=generators)]
        broken = (images != mask.flatten()).sum(-1)
        if bool(broken.any()):
            worst = int(broken.argmax())
            element, changed, total = int(generators[worst]), int(broken[worst]), mask.numel()
            effect = "exchanges the two parts" if changed == total else "sends pixels from one part to the other"
            raise ValueError(
                f"the mask is not invariant: element {element} of {action.group} {effect} ({changed} of {total} pixels "
                "change sides); make it constant on the orbits of pixels, or use checkerboard_split(action)"
            )
        self.action, self.mask = action, mask.cpu()
        self.parts = (action, action)
        self._count = int(mask.sum())

    def _mask(self, index: int, x: Tensor) -> Tensor:
        return kept_in(self._tables, (index, x.device), lambda: (self.mask if index == 0 else ~self.mask).to(x.device))

    def split(self, x: Tensor) -> tuple[Tensor, ...]:
        self.action.check_event(x)
        return self.restrict(0, x), self.restrict(1, x)

    def merge(self, parts: Sequence[Tensor]) -> Tensor:
        self.check_parts(parts)
        return torch.where(self._mask(0, parts[0]), parts[0], parts[1])

    def restrict(self, index: int, values: Tensor) -> Tensor:
        return torch.where(self._mask(index, values), values, 0.0)

    def _key(self) -> Any:
        return self.mask.numpy().tobytes()

    def __repr__(self) -> str:
        return f"MaskSplit({self.action}: {self._count} | {self.mask.numel() - self._count} pixels)"


def mirrored_checkerboard(height: int, width: int) -> Tensor:
    r"""A checkerboard mask that rotations by 90 degrees and reflections of the grid leave as it is.

    Each quadrant has a checkerboard, and the quadrants are mirror images of each other:
    :math:`(u + v) \bmod 2 = 0` with :math:`u = \lfloor |2i - n + 1| / 2 \rfloor` in row i out of n, and v likewise for
    columns. Both values are equally frequent where the sides are divisible by 4.

    Args:
        height: The number of rows.
        width: The number of columns.

    Example:
        >>> mirrored_checkerboard(4, 4).int().tolist()
        [[1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 1, 0], [1, 0, 0, 1]]
    """
    u, v = ((2 * torch.arange(n) - n + 1).abs() // 2 for n in (height, width))
    return (u[:, None] + v) % 2 == 0


def checkerboard_split(action: ImageAction) -> MaskSplit:
    """The split of the pixels of images by a checkerboard that the group leaves as it is.

    For C1, C2, C4, D1, D2 and D4 the checkerboards of the four quadrants are mirror images of each other. For
    translations by even steps it is a usual checkerboard; for translations with a point group, it is the mirrored
    checkerboard of ``step x step`` pixels, repeated.

    Args:
        action: How the group acts on images.

    Raises:
        TypeError: The action is not an ImageAction.
        ValueError: Translations exchange the colors (for odd steps; with a point group also for steps of 2).

    Example:
        >>> checkerboard_split(ImageAction("D4", size=8))
        MaskSplit(ImageAction(D4 on 1 x 8 x 8: trivial): 32 | 32 pixels)
    """
    if not isinstance(action, ImageAction):
        raise TypeError(f"expected an ImageAction to split by a mask of pixels, got {action}")
    if isinstance(action.group, WallpaperGroup):
        if action.point_group.order == 1:
            return plain_checkerboard_split(action)
        step = action.group.step
        return MaskSplit(action, mirrored_checkerboard(step, step).repeat(action.group.shifts))
    return MaskSplit(action, mirrored_checkerboard(action.height, action.width))


def plain_checkerboard_split(action: ImageAction) -> MaskSplit:
    """The split of the pixels of images by the usual checkerboard.

    Shifts by even steps leave this checkerboard as it is, but rotations by 90 degrees exchange its colors, so for most
    groups :func:`checkerboard_split` is the right one.

    Args:
        action: How the group acts on images, C1 or translations by even steps.

    Raises:
        TypeError: The action is not an ImageAction.
        ValueError: The group exchanges the colors.

    Example:
        >>> plain_checkerboard_split(ImageAction("C1", size=4))
        MaskSplit(ImageAction(C1 on 1 x 4 x 4: trivial): 8 | 8 pixels)
    """
    if not isinstance(action, ImageAction):
        raise TypeError(f"expected an ImageAction to split by a mask of pixels, got {action}")
    return MaskSplit(action, (torch.arange(action.height)[:, None] + torch.arange(action.width)) % 2 == 0)
