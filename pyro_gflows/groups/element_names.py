"""Descriptions of group elements in words, for reports and error messages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, Group
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.groups.torus_translations import TorusTranslations
from pyro_gflows.groups.wallpaper import WallpaperGroup

__all__ = ["element_name"]


def element_name(group: Group, element: Tensor) -> str:
    """A description of one group element in words.

    Args:
        group: The group of the element.
        element: An index of a finite group, or an element of a continuous one, a matrix or angles.

    Example:
        >>> element_name(DihedralGroup(4), torch.tensor(3))
        'element 3, rotation by 270 degrees'
        >>> element_name(DihedralGroup(4), torch.tensor(5))
        'element 5, reflection in the axis at 45 degrees'
        >>> element_name(SymmetricGroup(3), torch.tensor(3))
        'element 3, permutation [1, 2, 0]'
        >>> element_name(WallpaperGroup(8, 8, point_group="C4"), torch.tensor(41))
        'element 41, rotation by 90 degrees, then shift by 1 rows and 2 columns'
    """
    if isinstance(group, TorusTranslations):
        return f"translation by {', '.join(f'{math.degrees(angle):.1f}' for angle in element.tolist())} degrees"
    if not group.is_finite:
        return _of_matrix(element)
    number = int(element)
    words = ""
    if isinstance(group, CyclicGroup | DihedralGroup):
        words = _of_matrix(group.plane()[number])
    elif isinstance(group, SymmetricGroup):
        words = f"permutation {group.permutations()[number].tolist()}"
    elif isinstance(group, WallpaperGroup):
        words = _of_grid(group, element)
    elif isinstance(group, ProductGroup):
        words = f"that is {tuple(int(group.project(element, index)) for index in range(len(group.factors)))}"
    return f"element {number}, {words}" if words else f"element {number}"


def _of_grid(group: WallpaperGroup, element: Tensor) -> str:
    """A rotation or reflection of a periodic grid about its center, and then a shift."""
    down, right = group.shift(element).tolist()
    point = int(group.project(element))
    words = [f"shift by {down} rows and {right} columns"]
    if point and isinstance(group.point_group, CyclicGroup | DihedralGroup):
        words = [_of_matrix(group.point_group.plane()[point]), *(words if down or right else [])]
    return ", then ".join(words)


def _of_matrix(matrix: Tensor) -> str:
    """A rotation or reflection of the plane or of space."""
    reflects = bool(torch.linalg.det(matrix) < 0)
    if len(matrix) == 2:
        angle = math.degrees(math.atan2(matrix[1, 0], matrix[0, 0])) % 360
        return f"reflection in the axis at {_short(angle / 2)}" if reflects else f"rotation by {_short(angle)}"
    trace = float((-matrix if reflects else matrix).trace())
    angle = math.degrees(math.acos(min(1.0, max(-1.0, (trace - 1) / 2))))
    return f"{'inversion and ' if reflects else ''}rotation by {_short(angle)}"


def _short(degrees: float) -> str:
    return f"{round(degrees, 1) % 360:g} degrees"
