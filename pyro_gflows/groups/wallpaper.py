"""How finite groups act on the pixels of a grid, exactly: quarter turns, mirrors, and shifts of a periodic grid."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from pyro_gflows.groups.base import EnumerableGroup, Group
from pyro_gflows.groups.finite import PlanarGroup
from pyro_gflows.groups.names import parse_group
from pyro_gflows.numerics.constants import rows_at
from pyro_gflows.serialization.registry import registered

__all__ = ["TranslationGroup", "WallpaperGroup", "pixel_targets", "point_group_of"]

_EXACT = "C1, C2, D1 and D2 on any grid, C4 and D4 on a square one, and ImageAction.translations on a periodic one"


def _grid_matrices(group: Group, height: int, width: int) -> Tensor:
    """The 2 x 2 matrices of a point group, whole numbers; ValueError if it does not map this grid to itself."""
    if not isinstance(group, PlanarGroup) or bool((group.plane() % 1 != 0).any()):
        raise ValueError(
            f"a pixel grid cannot carry {group} exactly; it can carry {_EXACT}; for the other turns of the plane there "
            f"is OffGridAction({group.name!r}, size={max(height, width)}), and flows of it g_soft_coupling_image_flow"
        )
    matrices = group.plane().long()
    if height != width and bool(matrices[:, 0, 1].any()):
        raise ValueError(f"{group} turns a {height} x {width} grid off itself; a grid can carry {_EXACT}")
    return matrices


def pixel_targets(group: Group, height: int, width: int) -> Tensor:
    """Where each element of a point group sends each pixel of a grid, shape ``(|G|, height * width)``.

    Pixels are counted row by row from the top left; a turn by +90 degrees is counter-clockwise in the picture. On a
    grid of odd sides this is also how the offsets of a kernel are permuted.

    Raises:
        ValueError: the group does not map this grid to itself.

    Example:
        >>> pixel_targets(parse_group("C4"), 2, 2)[1].tolist()
        [2, 0, 3, 1]
    """
    matrices = _grid_matrices(group, height, width)
    # twice the centered coordinates, x to the right and y upwards, are whole numbers
    x = (2 * torch.arange(width) - (width - 1)).repeat(height)
    y = ((height - 1) - 2 * torch.arange(height)).repeat_interleave(width)
    moved = matrices @ torch.stack([x, y])
    columns, rows = moved[:, 0] + (width - 1), (height - 1) - moved[:, 1]
    return rows // 2 * width + columns // 2


@registered
class WallpaperGroup(EnumerableGroup):
    r"""Shifts of a periodic ``height x width`` grid by multiples of ``step`` pixels, together with a point group.

    Every element is :math:`q \mapsto t + p(q)`: first p of the point group acts about the center of the grid, then t
    shifts the grid. So :math:`(t, p)\,(t', p') = (t + p\,t',\; p\,p')`, a semidirect product (with D4, the wallpaper
    group p4m; with C4, p4). Element ``(a * (width / step) + b) * |P| + p`` applies element p of the point group, and
    then shifts by ``a * step`` rows down and ``b * step`` columns right; so the first |P| elements are the point group.

    Args:
        height: the number of rows.
        width: the number of columns.
        step: shifts are by multiples of this number of pixels.
        point_group: C1, C2, D1 or D2; on a square grid also C4 and D4.

    Attributes:
        linear: how each element of the point group acts on shifts (down, right), whole numbers, shape ``(|P|, 2, 2)``.

    Raises:
        ValueError: ``step`` does not divide the grid, or the grid cannot carry the point group.

    Example:
        >>> group = WallpaperGroup(32, 32, point_group="D4")
        >>> group, group.order
        (Z32xZ32:D4, 8192)
        >>> shift, turn = torch.tensor(8), torch.tensor(1)  # one column to the right; by 90 degrees
        >>> group.compose(turn, group.compose(shift, group.inverse(turn))) // 8  # one row up is 31 rows down
        tensor(992)
    """

    _compares_tables = False

    def __init__(self, height: int, width: int, step: int = 1, point_group: Group | str = "C1") -> None:
        if min(height, width, step) < 1 or height % step or width % step:
            raise ValueError(f"expected a step that divides the grid, got step {step} on {height} x {width} pixels")
        self.height, self.width, self.step = height, width, step
        self.shifts = (height // step, width // step)
        parsed = parse_group(point_group)
        matrices = _grid_matrices(parsed, height, width)
        assert isinstance(parsed, EnumerableGroup)  # as its matrices are whole numbers
        self.point_group = parsed
        # of coordinates (right, up) the matrices become those of (down, right)
        (xx, xy), (yx, yy) = matrices.permute(1, 2, 0)
        self.linear = torch.stack([torch.stack([yy, -yx], -1), torch.stack([-xy, xx], -1)], -2)
        self.order = self.shifts[0] * self.shifts[1] * parsed.order
        lattice = f"Z{self.shifts[0]}xZ{self.shifts[1]}"
        self.name = lattice if parsed.order == 1 else f"{lattice}:{parsed}"

    def project(self, elements: Tensor) -> Tensor:
        """The element of the point group in each element."""
        return elements % self.point_group.order

    def shift(self, elements: Tensor) -> Tensor:
        """By how many pixels each element shifts the grid (down, right) in the end, shape ``batch + (2,)``."""
        return self.step * self._lattice(elements)

    def _lattice(self, elements: Tensor) -> Tensor:
        index, (_, right) = elements // self.point_group.order, self.shifts
        return torch.stack([index // right, index % right], -1)

    def _element(self, lattice: Tensor, point: Tensor) -> Tensor:
        down, right = self.shifts
        return (lattice[..., 0] % down * right + lattice[..., 1] % right) * self.point_group.order + point

    def _moved(self, point: Tensor, lattice: Tensor) -> Tensor:
        """The linear part of elements of the point group, applied to shifts."""
        linear = rows_at(self._constant("linear", point.device, lambda: self.linear), point)
        return (linear * lattice[..., None, :]).sum(-1)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        outer, inner = self.project(first), self.project(second)
        lattice = self._lattice(first) + self._moved(outer, self._lattice(second))
        return self._element(lattice, self.point_group.compose(outer, inner))

    def inverse(self, elements: Tensor) -> Tensor:
        back = self.point_group.inverse(self.project(elements))
        return self._element(-self._moved(back, self._lattice(elements)), back)

    def generators(self) -> Tensor:
        (down, right), count = self.shifts, self.point_group.order
        shifts = [right * count] * (down > 1) + [count] * (right > 1)
        return torch.cat([torch.tensor(shifts, dtype=torch.int64), self.point_group.generators()])

    def _key(self) -> Any:
        # the point group by its name: C2 and D1 are one group that acts on the plane in two ways
        return (self.shifts, self.point_group.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WallpaperGroup) and self._key() == other._key()

    __hash__ = EnumerableGroup.__hash__


@registered
class TranslationGroup(WallpaperGroup):
    r"""Shifts of a periodic ``height x width`` grid by multiples of ``step`` pixels, Z_{height/step} x Z_{width/step}.

    Element ``a * (width / step) + b`` shifts every pixel ``a * step`` rows down and ``b * step`` columns right.

    Raises:
        ValueError: ``step`` does not divide the grid.

    Example:
        >>> TranslationGroup(8, 4, 2).order
        8
    """

    def __init__(self, height: int, width: int, step: int = 1) -> None:
        super().__init__(height, width, step)


def point_group_of(group: Group) -> Group:
    """The part of a group that acts on the channels of an image and on the offsets of a kernel: all but the shifts.

    Example:
        >>> point_group_of(TranslationGroup(8, 8)), point_group_of(parse_group("C4"))
        (C1, C4)
    """
    return group.point_group if isinstance(group, WallpaperGroup) else group
