"""The arguments of actions on images: the size of the grid, and the fields that the channels consist of."""

from __future__ import annotations

from collections.abc import Sequence

from pyro_gflows.groups.base import Group
from pyro_gflows.groups.permutation_representations import RegularRepresentation
from pyro_gflows.groups.representations import Representation, TrivialRepresentation
from pyro_gflows.groups.wallpaper import WallpaperGroup, point_group_of

__all__ = ["grid_size", "image_fields"]


def grid_size(size: int | Sequence[int]) -> tuple[int, int]:
    """The height and the width of a grid, from one integer or two.

    Args:
        size: H = W, or (H, W).

    Raises:
        ValueError: The size is neither a positive integer nor two of them.

    Example:
        >>> grid_size(32), grid_size((28, 32))
        ((32, 32), (28, 32))
    """
    sides = (size, size) if isinstance(size, int) else tuple(size)
    if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
        raise ValueError(f"expected a size such as 32 or (28, 32), got {size!r}")
    return sides


def image_fields(
    group: Group, copies: int | None, fields: str | Representation | Sequence[Representation]
) -> tuple[Representation, ...]:
    """The representation of each field, of the group without the shifts of a periodic grid.

    Args:
        group: The group that acts on images.
        copies: The number of fields, or None for one field, or for as many as are listed.
        fields: "trivial", "regular", one representation for all fields, or a sequence of them.

    Raises:
        TypeError: A field is not a representation.
        ValueError: The name is unknown, or the group or the number of fields is wrong.

    Example:
        >>> from pyro_gflows.groups import parse_group
        >>> image_fields(parse_group("D4"), 2, "trivial")
        (trivial of D4, trivial of D4)
    """
    if copies is not None and (not isinstance(copies, int) or copies < 1):
        raise ValueError(f"expected a positive number of copies of the fields, got {copies!r}")
    point = point_group_of(group)
    if isinstance(fields, str):
        kinds = {"trivial": TrivialRepresentation, "regular": RegularRepresentation}
        if fields not in kinds:
            raise ValueError(f"expected fields 'trivial', 'regular' or representations, got {fields!r}")
        fields = kinds[fields](point)
    chosen = [fields] * (copies or 1) if isinstance(fields, Representation) else list(fields)
    listed = []
    for field in chosen:
        if not isinstance(field, Representation):
            raise TypeError(f"expected representations as fields, got {type(field).__name__}")
        if field == TrivialRepresentation(group):  # of the translations, as in earlier versions
            field = TrivialRepresentation(point)
        if field.group != point:
            raise ValueError(f"expected fields of {point}, got {field}")
        listed.append(field)
    if not listed or len(listed) != (copies or len(listed)):
        raise ValueError(f"expected {copies or 'at least one'} fields, got {len(listed)}")
    if isinstance(group, WallpaperGroup) and group.point_group.order == 1:
        if set(listed) != {TrivialRepresentation(point)}:
            raise ValueError(f"expected trivial fields for the translations {group}, got {set(listed)}")
    return tuple(listed)
