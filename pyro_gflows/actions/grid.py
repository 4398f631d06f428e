"""How a finite group permutes the pixels of a grid, exactly: quarter turns, mirrors, and shifts of a periodic grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_gflows.actions.groups import FiniteGroup, Group, _Planar
from pyro_gflows.registry import registered

__all__ = ["TranslationGroup", "offset_targets", "pixel_targets"]

_EXACT = "C1, C2, D1 and D2 on any grid, C4 and D4 on a square one, and ImageAction.translations on a periodic one"


@registered
class TranslationGroup(FiniteGroup):
    r"""Shifts of a periodic ``height x width`` grid by multiples of ``step`` pixels, Z_{height/step} x Z_{width/step}.

    Element ``a * (width / step) + b`` moves every pixel ``a * step`` rows down and ``b * step`` columns right.

    Raises:
        ValueError: ``step`` does not divide the grid.

    Example:
        >>> TranslationGroup(8, 4, 2).order
        8
    """

    def __init__(self, height: int, width: int, step: int = 1) -> None:
        if min(height, width, step) < 1 or height % step or width % step:
            raise ValueError(f"expected a step that divides the grid, got step {step} on {height} x {width} pixels")
        self.height, self.width, self.step = height, width, step
        self.shifts = (height // step, width // step)
        down, right = self.shifts
        index = torch.arange(down * right)
        a, b = index // right, index % right
        table = (a[:, None] + a) % down * right + (b[:, None] + b) % right
        generators = [right] * (down > 1) + [1] * (right > 1)
        super().__init__(f"Z{down}xZ{right}", table, generators)

    def _key(self) -> Any:  # the table is large, and these two numbers determine it
        return ("translations", self.shifts)


def pixel_targets(group: Group, height: int, width: int) -> Tensor:
    """Where each element sends each pixel of a ``height x width`` grid, shape ``(|G|, height * width)``.

    Pixels are counted row by row from the top left; a turn by +90 degrees is counter-clockwise in the picture.

    Raises:
        ValueError: the group does not map this grid to itself.

    Example:
        >>> from pyro_gflows.actions import CyclicGroup
        >>> pixel_targets(CyclicGroup(4), 2, 2)[1].tolist()
        [2, 0, 3, 1]
    """
    if isinstance(group, TranslationGroup):
        if (height, width) != (group.height, group.width):
            raise ValueError(f"expected the {group.height} x {group.width} grid of {group}, got {height} x {width}")
        _, right = group.shifts
        element = torch.arange(group.order)
        rows = (torch.arange(height) + group.step * (element // right)[:, None]) % height
        columns = (torch.arange(width) + group.step * (element % right)[:, None]) % width
        return (rows[:, :, None] * width + columns[:, None, :]).flatten(1)
    return _turned(group, height, width)


def offset_targets(group: Group, size: int) -> Tensor:
    """Where each element sends each offset of a ``size x size`` kernel (a shift leaves offsets alone)."""
    if isinstance(group, TranslationGroup):
        return torch.arange(size * size).expand(group.order, -1)
    return _turned(group, size, size)


def _turned(group: Group, height: int, width: int) -> Tensor:
    if not isinstance(group, _Planar) or bool((group.plane() % 1 != 0).any()):
        raise ValueError(
            f"a pixel grid cannot carry {group} exactly; it can carry {_EXACT}; for the other turns of the plane there "
            f"is OffGridAction({group.name!r}, size={max(height, width)}), and flows of it with soft=True"
        )
    if height != width and bool(group.plane()[:, 0, 1].any()):
        raise ValueError(f"{group} turns a {height} x {width} grid off itself; a grid can carry {_EXACT}")
    # twice the centred coordinates, x to the right and y upwards, are whole numbers
    x = (2 * torch.arange(width) - (width - 1)).repeat(height)
    y = ((height - 1) - 2 * torch.arange(height)).repeat_interleave(width)
    moved = group.plane().long() @ torch.stack([x, y])
    columns, rows = moved[:, 0] + (width - 1), (height - 1) - moved[:, 1]
    return rows // 2 * width + columns // 2
