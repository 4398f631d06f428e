"""The option ``--rows N`` of pytest: a quick check keeps rows of many families of the table of constructors."""

import collections
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.constructors import CONDITIONAL, CONSTRUCTORS, TABLE, names
from tests.quick_look import quick_look, some_rows

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("table", [CONSTRUCTORS, CONDITIONAL, TABLE], ids=["alone", "conditional", "all"])
@pytest.mark.parametrize("count", [1, 3, 5])
def test_the_rows_are_of_as_many_families_as_there_can_be(table, count):
    kept = some_rows(table, count, key="a test")
    assert len(kept) == count and kept <= set(table)
    assert len({TABLE[name].family for name in kept}) == count
    assert kept == some_rows(table, count, key="a test")


def test_of_one_family_the_rows_differ():
    chosen = names(CONSTRUCTORS, family="residual")
    assert len(some_rows(chosen, 3, key="a test")) == 3
    assert some_rows(chosen, 100, key="a test") == set(chosen)
    assert some_rows([], 3, key="a test") == set()


def test_many_tests_together_meet_most_of_the_table():
    met = set().union(*(some_rows(TABLE, 3, key=f"test number {number}") for number in range(150)))
    assert len(met) > 0.8 * len(TABLE)
    assert {TABLE[name].family for name in met} == {row.family for row in TABLE.values()}


def cases_of(test, count, *, marker=None, **arguments):
    """Cases as pytest collects them, with all that the choice among them reads."""
    return [
        SimpleNamespace(
            path="a file",
            originalname=test,
            callspec=SimpleNamespace(params={key: values[number] for key, values in arguments.items()}),
            get_closest_marker=lambda name: name == marker,
        )
        for number in range(count)
    ]


def test_other_tests_keep_some_of_their_cases_or_all():
    several, one = cases_of("several", 10, x=range(10)), cases_of("one", 1)
    kept = quick_look([*several, *one], 2)
    assert len(kept) == 3 and one[0] in kept
    assert quick_look([*several, *one], 2) == kept
    every = cases_of("every", 10, marker="all_cases", x=range(10))
    assert quick_look(every, 2) == every


def test_a_row_is_kept_with_one_of_its_cases_or_all():
    rows = [name for name in list(TABLE)[:5] for _ in range(2)]
    kept = quick_look(cases_of("over the table", 10, name=rows, x=[0, 1] * 5), 2)
    assert len(kept) == len({case.callspec.params["name"] for case in kept}) == 2
    every = quick_look(cases_of("over the table", 10, marker="all_cases", name=rows, x=[0, 1] * 5), 2)
    assert sorted(case.callspec.params["x"] for case in every) == [0, 0, 1, 1]


@pytest.mark.long
def test_each_test_over_the_table_keeps_that_many_rows_and_long_tests_are_left_out():
    files = ["tests/contracts/test_printing.py", "tests/contracts/test_modules.py", "tests/serialization/test_save.py"]
    command = [sys.executable, "-m", "pytest", "-p", "hypothesispytest", "-q", "--collect-only", "--rows", "2", *files]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    cases = [line for line in done.stdout.splitlines() if "::" in line]
    rows = collections.defaultdict(set)
    for case in cases:
        test, _, identity = case.partition("[")
        found = [name for name in TABLE if name in identity]
        if found:
            rows[test].add(max(found, key=len))  # a name may be part of another one
    assert sum("test_save.py::test_the_dtype_is_kept" in case for case in cases) == 2
    assert "tests/serialization/test_save.py::test_a_new_process_gives_identical_log_probs" not in cases
    assert len(rows) > 10
    assert {len(kept) for kept in rows.values()} == {2}
