"""Descriptions of group elements in words, for reports and error messages."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, EnumerableGroup, Group
from pyro_gflows.groups.monomial import MonomialGroup
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.groups.symmetric import SymmetricGroup
from pyro_gflows.groups.torus_translations import TorusTranslations
from pyro_gflows.groups.wallpaper import WallpaperGroup

__all__ = ["element_name"]

_LISTED_UP_TO = 10  # things; of more, a few are named


def element_name(group: Group, element: Tensor) -> str:
    """A description of one group element in words.

    Args:
        group: The group of the element.
        element: An element: an index where the elements can be listed, else a permutation, signs, a matrix, angles, or
            the vector of an element of a product.

    Example:
        >>> from pyro_gflows.groups import parse_group
        >>> element_name(DihedralGroup(4), torch.tensor(3))
        'element 3, rotation by 270 degrees'
        >>> element_name(DihedralGroup(4), torch.tensor(5))
        'element 5, reflection in the axis at 45 degrees'
        >>> element_name(SymmetricGroup(3), torch.tensor(3))
        'element 3, permutation [1, 2, 0]'
        >>> signed = parse_group("signed S50")
        >>> element_name(signed, signed.generators()[0])
        'permutation of 0 to 1, 1 to 0 and no sign flip'
        >>> element_name(WallpaperGroup(8, 8, point_group="C4"), torch.tensor(41))
        'element 41, rotation by 90 degrees, then shift by 1 rows and 2 columns'
    """
    if not isinstance(group, EnumerableGroup):
        return _without_index(group, element)
    number = int(element)
    words = ""
    if isinstance(group, CyclicGroup | DihedralGroup):
        words = _of_matrix(group.plane()[number])
    elif isinstance(group, MonomialGroup):
        words = _of_things(group, element)
    elif isinstance(group, WallpaperGroup):
        words = _of_grid(group, element)
    elif isinstance(group, ProductGroup):
        words = f"that is {tuple(int(group.project(element, index)) for index in range(len(group.factors)))}"
    return f"element {number}, {words}" if words else f"element {number}"


def _without_index(group: Group, element: Tensor) -> str:
    if isinstance(group, TorusTranslations):
        return f"translation by {', '.join(f'{math.degrees(angle):.1f}' for angle in element.tolist())} degrees"
    if isinstance(group, ProductGroup):
        parts = enumerate(group.factors)
        return "; ".join(f"{factor}: {element_name(factor, group.project(element, index))}" for index, factor in parts)
    if isinstance(group, MonomialGroup):
        return _of_things(group, element)
    return _of_matrix(element)


def _of_things(group: MonomialGroup, element: Tensor) -> str:
    """A permutation of things and flips of their signs."""
    places, signs = group.permutations_of(element).tolist(), group.signs_of(element).tolist()
    flipped = [thing for thing, sign in enumerate(signs) if sign < 0]
    words = [] if isinstance(group, SignGroup) else [_of_permutation(places)]
    if not isinstance(group, SymmetricGroup):
        words.append(_of_flips(flipped, len(signs)))
    return " and ".join(words)


def _of_permutation(places: list[int]) -> str:
    displaced = [f"{thing} to {place}" for thing, place in enumerate(places) if thing != place]
    if len(places) <= _LISTED_UP_TO:
        return f"permutation {places}"
    if not displaced:
        return "no permutation"
    if len(displaced) <= _LISTED_UP_TO:
        return f"permutation of {', '.join(displaced)}"
    return f"permutation of {len(displaced)} of {len(places)} things, {', '.join(displaced[:3])}, ..."


def _of_flips(flipped: list[int], count: int) -> str:
    if not flipped:
        return "no sign flip"
    if len(flipped) <= _LISTED_UP_TO:
        return f"sign flip{'s' if len(flipped) > 1 else ''} of {', '.join(map(str, flipped))}"
    return f"sign flips of {len(flipped)} of {count} things, {', '.join(map(str, flipped[:3]))}, ..."


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
