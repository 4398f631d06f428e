"""The option ``--rows N``: a choice of test cases that checks a change within a minute."""

from __future__ import annotations

import collections
import itertools
import random
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tests.constructors import TABLE

__all__ = ["quick_look", "some_rows"]


def quick_look(items: Sequence[Any], count: int) -> list[Any]:
    """Choose ``count`` rows, with one case each, of a test over the table, and ``count`` cases of any other test.

    The choice is the same at each call. A test that is marked ``all_cases`` keeps all cases.
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
    """Yield the rows of the table that a case is for, with the names of the arguments."""
    for argument, value in case.callspec.params.items() if hasattr(case, "callspec") else ():
        if isinstance(value, str) and value in TABLE:
            yield argument, value


def some_rows(names: Iterable[str], count: int, *, key: str) -> set[str]:
    """Choose ``count`` rows of the table, of as many families as possible; the choice is the same at each call.

    Args:
        names: The rows to choose from.
        count: The number of rows to keep.
        key: The seed of the choice, so that tests with other keys keep other rows and a run meets most of the table.
    """
    families: dict[str, list[str]] = collections.defaultdict(list)
    distinct = list(dict.fromkeys(names))
    # families in the order of their first rows, so that a large one is met about as often as its rows are many
    for name in random.Random(key).sample(distinct, len(distinct)):
        families[TABLE[name].family].append(name)
    alternating = [name for row in itertools.zip_longest(*families.values()) for name in row if name is not None]
    return set(alternating[:count])
