"""parse_group: a group from its usual name."""

from __future__ import annotations

import re
from collections.abc import Callable

from pyro_gflows.groups.continuous import CONTINUOUS_GROUPS
from pyro_gflows.groups.finite import CyclicGroup, DihedralGroup, Group
from pyro_gflows.groups.products import ProductGroup
from pyro_gflows.groups.signed_permutations import SignedPermutationGroup
from pyro_gflows.groups.signs import SignGroup
from pyro_gflows.groups.symmetric import SymmetricGroup

__all__ = ["parse_group"]

_FINITE: dict[str, Callable[[int], Group]] = {
    "C": CyclicGroup,
    "D": DihedralGroup,
    "S": SymmetricGroup,
    "C2^": SignGroup,
    "SIGNEDS": SignedPermutationGroup,
}


def parse_group(name: str | Group) -> Group:
    """A group from its usual name: "C4", "D8", "S20", "C2^20", "signed S50", "S13 x O(3)", "SO(2)" and the like.

    C_n is the group of n rotations of the plane, D_n adds n reflections. S_n permutes n things, C2^n changes n signs,
    and signed S_n does both. SO(2), O(2), SO(3) and O(3) are the rotations, and the rotations and reflections, of the
    plane and of space. "x" joins independent groups to a direct product.

    Args:
        name: The name; a group is returned as it is.

    Raises:
        TypeError: The argument is neither a group nor a name.
        ValueError: The name is none of these.

    Example:
        >>> parse_group("D8").order, parse_group("S3 x C2").order, parse_group("signed S3").order
        (16, 12, 48)
    """
    if isinstance(name, Group):
        return name
    if not isinstance(name, str):
        raise TypeError(f"expected a group or its name such as 'D4', got {type(name).__name__}")
    closed = name.upper().strip() if name.count("(") == name.count(")") else ""
    factors = _factors(closed)
    if len(factors) > 1:
        return ProductGroup([parse_group(factor) for factor in factors])
    if re.fullmatch(r"\(.*\sX\s.*\)", closed):
        return parse_group(closed[1:-1])  # a product that is one factor of another
    compact = re.sub(r"[\s_{}()]", "", closed)
    match = re.fullmatch(r"(C2\^|SIGNEDS|[CDS])(\d+)", compact)
    if match and int(match[2]) > 0:
        return _FINITE[match[1]](int(match[2]))
    if compact in CONTINUOUS_GROUPS:
        return CONTINUOUS_GROUPS[compact]()
    raise ValueError(
        "expected a group such as 'C4', 'D8', 'S20', 'C2^20', 'signed S50', 'S3 x C2', 'SO(2)', 'O(2)', 'SO(3)' or "
        f"'O(3)', with a positive number, got {name!r}"
    )


def _factors(name: str) -> list[str]:
    """The parts of a name between the "x" that stand outside of all parentheses."""
    factors: list[str] = []
    for part in re.split(r"\s+X\s+", name):
        if factors and factors[-1].count("(") > factors[-1].count(")"):
            factors[-1] += f" X {part}"
        else:
            factors.append(part)
    return factors
