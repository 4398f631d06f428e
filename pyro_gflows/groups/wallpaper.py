"""Groups that permute the pixels of a grid: rotations by 90 degrees, reflections, and shifts of a periodic grid."""

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
    """The integer 2 x 2 matrices of a point group; ValueError if the group does not map the grid to itself."""
    if not isinstance(group, PlanarGroup) or bool((group.plane() % 1 != 0).any()):
        raise ValueError(
            f"{group} does not map a pixel grid to itself; the groups that do are {_EXACT}; for other rotations "
            f"of the plane take OffGridAction({group.name!r}, size={max(height, width)}) and g_soft_coupling_image_flow"
        )
    matrices = group.plane().long()
    if height != width and bool(matrices[:, 0, 1].any()):
        raise ValueError(
            f"{group} does not map a {height} x {width} grid to itself; the groups that map a grid to itself are "
            f"{_EXACT}"
        )
    return matrices


def pixel_targets(group: Group, height: int, width: int) -> Tensor:
    """The pixel to which each element of a point group sends each pixel of a grid.

    A point group consists of rotations and reflections about the center of the grid. Pixels are counted row by row from
    the top left; a rotation by +90 degrees is counterclockwise in the picture. The offsets of a convolution kernel with
    odd sides are permuted in the same way.

    Args:
        group: The point group.
        height: The number of rows of the grid.
        width: The number of columns of the grid.

    Returns:
        Shape ``(|G|, height * width)``.

    Raises:
        ValueError: The group does not map this grid to itself.

    Example:
        >>> pixel_targets(parse_group("C4"), 2, 2)[1].tolist()
        [2, 0, 3, 1]
    """
    matrices = _grid_matrices(group, height, width)
    # twice the centered coordinates, x to the right and y upwards, are integers
    x = (2 * torch.arange(width) - (width - 1)).repeat(height)
    y = ((height - 1) - 2 * torch.arange(height)).repeat_interleave(width)
    images = matrices @ torch.stack([x, y])
    columns, rows = images[:, 0] + (width - 1), (height - 1) - images[:, 1]
    return rows // 2 * width + columns // 2


@registered
class WallpaperGroup(EnumerableGroup):
    r"""The shifts of a periodic grid, together with a group of rotations and reflections (point group).

    This is the symmetry of textures and of lattice models, in which no place and no direction is special. Every
    element is a map :math:`q \mapsto t + p(q)` of pixels q: first the element p of the point group acts about the
    center of the grid, then the grid is shifted by t. Hence :math:`(t, p)\,(t', p') = (t + p\,t',\; p\,p')`, which is
    a semidirect product (the wallpaper group p4m with D4, or p4 with C4).

    Element ``(a * (width / step) + b) * |P| + p`` applies element p of the point group, and then shifts by ``a * step``
    rows down and ``b * step`` columns right. So the first |P| elements are the point group.

    Args:
        height: The number of rows.
        width: The number of columns.
        step: Shifts are by multiples of this number of pixels.
        point_group: C1, C2, D1 or D2; on a square grid also C4 and D4.

    Attributes:
        linear: The matrices by which the point group acts on shifts (down, right), integers, shape ``(|P|, 2, 2)``.

    Raises:
        ValueError: ``step`` does not divide the grid, or the point group does not map the grid to itself.

    Example:
        >>> group = WallpaperGroup(32, 32, point_group="D4")
        >>> group, group.order
        (Z32xZ32:D4, 8192)
        >>> shift, rotation = torch.tensor(8), torch.tensor(1)  # one column to the right; by 90 degrees
        >>> conjugate = group.compose(rotation, group.compose(shift, group.inverse(rotation)))
        >>> group.shift(conjugate).tolist()  # one row up is 31 rows down
        [31, 0]
    """

    _compares_tables = False

    def __init__(self, height: int, width: int, step: int = 1, point_group: Group | str = "C1") -> None:
        if min(height, width, step) < 1 or height % step or width % step:
            raise ValueError(f"expected a step that divides the grid, got step {step} on {height} x {width} pixels")
        self.height, self.width, self.step = height, width, step
        self.shifts = (height // step, width // step)
        parsed = parse_group(point_group)
        matrices = _grid_matrices(parsed, height, width)
        assert isinstance(parsed, EnumerableGroup)  # because its matrices are integers
        self.point_group = parsed
        # from matrices for coordinates (right, up) to matrices for (down, right)
        (xx, xy), (yx, yy) = matrices.permute(1, 2, 0)
        self.linear = torch.stack([torch.stack([yy, -yx], -1), torch.stack([-xy, xx], -1)], -2)
        self.order = self.shifts[0] * self.shifts[1] * parsed.order
        lattice = f"Z{self.shifts[0]}xZ{self.shifts[1]}"
        self.name = lattice if parsed.order == 1 else f"{lattice}:{parsed}"

    def project(self, elements: Tensor) -> Tensor:
        """The element p of the point group in each element (t, p).

        Args:
            elements: Elements of this group.
        """
        return elements % self.point_group.order

    def shift(self, elements: Tensor) -> Tensor:
        """The shift t of each element (t, p), in pixels (down, right), shape ``batch + (2,)``.

        Args:
            elements: Elements of this group.
        """
        return self.step * self._lattice(elements)

    def _lattice(self, elements: Tensor) -> Tensor:
        index, (_, right) = elements // self.point_group.order, self.shifts
        return torch.stack([index // right, index % right], -1)

    def _element(self, lattice: Tensor, point: Tensor) -> Tensor:
        down, right = self.shifts
        return (lattice[..., 0] % down * right + lattice[..., 1] % right) * self.point_group.order + point

    def _rotated(self, point: Tensor, lattice: Tensor) -> Tensor:
        """The images of shifts under elements of the point group."""
        linear = rows_at(self._constant("linear", point.device, lambda: self.linear), point)
        return (linear * lattice[..., None, :]).sum(-1)

    def compose(self, first: Tensor, second: Tensor) -> Tensor:
        outer, inner = self.project(first), self.project(second)
        lattice = self._lattice(first) + self._rotated(outer, self._lattice(second))
        return self._element(lattice, self.point_group.compose(outer, inner))

    def inverse(self, elements: Tensor) -> Tensor:
        back = self.point_group.inverse(self.project(elements))
        return self._element(-self._rotated(back, self._lattice(elements)), back)

    def generators(self) -> Tensor:
        (down, right), count = self.shifts, self.point_group.order
        shifts = [right * count] * (down > 1) + [count] * (right > 1)
        return torch.cat([torch.tensor(shifts, dtype=torch.int64), self.point_group.generators()])

    def _key(self) -> Any:
        # by the name of the point group: C2 and D1 are one group that acts on the plane in two ways
        return (self.shifts, self.point_group.name)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WallpaperGroup) and self._key() == other._key()

    __hash__ = EnumerableGroup.__hash__


@registered
class TranslationGroup(WallpaperGroup):
    r"""The shifts of a periodic grid, :math:`\mathbb{Z}_{H / s} \times \mathbb{Z}_{W / s}` for steps of s pixels.

    Element ``a * (width / step) + b`` shifts every pixel ``a * step`` rows down and ``b * step`` columns right.

    Args:
        height: The number of rows H.
        width: The number of columns W.
        step: Shifts are by multiples of this number of pixels.

    Raises:
        ValueError: ``step`` does not divide the grid.

    Example:
        >>> TranslationGroup(8, 4, 2).order
        8
    """

    def __init__(self, height: int, width: int, step: int = 1) -> None:
        super().__init__(height, width, step)


def point_group_of(group: Group) -> Group:
    """The point group of a group of maps of a grid: its rotations and reflections, without the shifts.

    The point group is the part that acts on the channels of an image and on the offsets of a convolution kernel.

    Args:
        group: Any group; one without shifts is its own point group.

    Example:
        >>> point_group_of(TranslationGroup(8, 8)), point_group_of(parse_group("C4"))
        (C1, C4)
    """
    return group.point_group if isinstance(group, WallpaperGroup) else group
