"""``--rows N``: every test over the table keeps N of its rows, so that a change is checked within a minute."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

from tests.constructors.table import TABLE

__all__ = ["some_rows"]


def some_rows(names: Iterable[str], count: int, *, key: str) -> set[str]:
    """That many of the rows, of as many families as possible, the same ones each time.

    Args:
        names: the rows that a test is for.
        count: how many of them are to be kept.
        key: decides which ones, so that tests with other keys keep other rows and a run meets most of the table.
    """
    families: dict[str, list[str]] = {}
    for name in names:
        families.setdefault(TABLE[name].family, []).append(name)
    groups = [_rotated(rows, key + family) for family, rows in families.items()]
    rounds = max(map(len, groups), default=0)
    in_turn = [rows[place] for place in range(rounds) for rows in _rotated(groups, key) if place < len(rows)]
    return set(in_turn[:count])


def _rotated(items: Sequence, key: str) -> list:
    start = zlib.crc32(key.encode()) % len(items) if items else 0
    return [*items[start:], *items[:start]]
