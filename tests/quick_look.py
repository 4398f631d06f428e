"""``--rows N``: which test cases check a change within a minute."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.constructors import TABLE

__all__ = ["quick_look", "some_rows"]


def quick_look(items: Sequence[Any], count: int) -> list[Any]:
    """Of each test over the table that many rows, with one case each; of any other test that many cases.

    The same ones each time. A test that is marked ``all_cases`` keeps them all.
    """
    tests: dict[tuple[str, str], list[Any]] = collections.defaultdict(list)
    for item in items:
        tests[str(item.path), getattr(item, "originalname", None) or item.name].append(item)
    return [item for (_, name), cases in tests.items() for item in _some_cases(cases, count, key=name)]


def _some_cases(cases: Sequence[Any], count: int, *, key: str) -> list[Any]:
    rows: dict[str, list[str]] = collections.defaultdict(list)  # by argument
    for case in cases:
        for argument, name in _rows_of(case):
            rows[argument].append(name)
    if rows:
        kept = {argument: some_rows(names, count, key=key + argument) for argument, names in rows.items()}
        by_row: dict[tuple[tuple[str, str], ...], list[Any]] = collections.defaultdict(list)
        for case in cases:
            if all(name in kept[argument] for argument, name in _rows_of(case)):
                by_row[tuple(_rows_of(case))].append(case)
        return [case for row, of_row in by_row.items() for case in _some(of_row, 1, key=f"{key}{row}")]
    return _some(cases, count, key=key)


def _some(cases: Sequence[Any], count: int, *, key: str) -> list[Any]:
    if len(cases) <= count or cases[0].get_closest_marker("all_cases"):
        return list(cases)
    return random.Random(key).sample(cases, count)


def _rows_of(case: Any) -> Iterator[tuple[str, str]]:
    """The rows of the table that a case is for, with the names of the arguments."""
    for argument, value in case.callspec.params.items() if hasattr(case, "callspec") else ():
        if isinstance(value, str) and value in TABLE:
            yield argument, value


def some_rows(names: Iterable[str], count: int, *, key: str) -> set[str]:
    """That many rows of the table, of as many families as possible, the same ones each time.

    Args:
        names: the rows to choose from.
        count: how many are kept.
        key: decides which ones, so that tests with other keys keep other rows and a run meets most of the table.
    """
    families: dict[str, list[str]] = collections.defaultdict(list)
    for name in dict.fromkeys(names):
        families[TABLE[name].family].append(name)
    order = random.Random(key)
    groups = [order.sample(rows, len(rows)) for rows in families.values()]
    order.shuffle(groups)
    in_turn = [name for turn in itertools.zip_longest(*groups) for name in turn if name is not None]
    return set(in_turn[:count])
