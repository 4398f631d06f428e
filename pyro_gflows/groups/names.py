"""parse_group: a group from its usual name."""

from __future__ import annotations

import re
from collections.abc import Callable

from pyro_gflows.groups.continuous import CONTINUOUS_GROUPS
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, Group
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.symmetric import SymmetricGroup

__all__ = ["parse_group"]

_FINITE: dict[str, Callable[[int], Group]] = {"C": CyclicGroup, "D": DihedralGroup, "S": SymmetricGroup}


def parse_group(name: str | Group) -> Group:
    """A group from its usual name: "C4", "D8", "S3", "S3 x C2", "SO(2)", "O(2)", "SO(3)" or "O(3)".

    C_n is the group of n rotations of the plane, D_n adds n reflections, S_n permutes n things, and "x" joins
    independent groups to a direct product.

    Args:
        name: The name; a group is returned as it is.

    Raises:
        TypeError: The argument is neither a group nor a name.
        ValueError: The name is none of these.

    Example:
        >>> parse_group("D8").order, parse_group("S3 x C2").order
        (16, 12)
    """
    if isinstance(name, Group):
        return name
    if not isinstance(name, str):
        raise TypeError(f"expected a group or its name such as 'D4', got {type(name).__name__}")
    factors = re.split(r"\s+X\s+", name.strip().upper())
    if len(factors) > 1:
        return ProductGroup([parse_group(factor) for factor in factors])
    compact = re.sub(r"[\s_{}()]", "", name.upper())
    match = re.fullmatch(r"([CDS])(\d+)", compact)
    if match and int(match[2]) > 0:
        return _FINITE[match[1]](int(match[2]))
    if compact in CONTINUOUS_GROUPS:
        return CONTINUOUS_GROUPS[compact]()
    raise ValueError(
        f"expected a group such as 'C4', 'D8', 'S3', 'S3 x C2', 'SO(2)', 'O(2)', 'SO(3)' or 'O(3)', got {name!r}"
    )
