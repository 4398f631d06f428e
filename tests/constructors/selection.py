"""``--rows N``: every test over the table keeps N of its rows, so that a change is checked within a minute."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable

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
    order = random.Random(key)
    groups = [order.sample(rows, len(rows)) for rows in families.values()]
    order.shuffle(groups)
    in_turn = [name for turn in itertools.zip_longest(*groups) for name in turn if name is not None]
    return set(in_turn[:count])
