"""The contracts that tests cite by number are in README.md, each with tests that exist."""

import ast
import functools
import re
from pathlib import Path

HERE = Path(__file__).parent
TESTS = HERE.parent
CITATION = re.compile(r"[Cc]ontracts?\s+(\d+(?:(?:,| and|, and)\s+\d+)*)")
ROW = re.compile(r"^\| (\d+) \| (.+) \| (`.+`) \|$", re.MULTILINE)


@functools.cache
def cited():
    """Every number that a file of tests cites, with the files."""
    found = {}
    for path in sorted(TESTS.rglob("*.py")):
        for citation in CITATION.findall(path.read_text(encoding="utf-8")):
            for number in re.findall(r"\d+", citation):
                found.setdefault(int(number), set()).add(str(path.relative_to(TESTS)))
    return found


@functools.cache
def listed():
    """Each number of the list, with the tests that it names: file (from the folder of tests) and function."""
    rows = ROW.findall((HERE / "README.md").read_text(encoding="utf-8"))
    tests = {int(number): re.findall(r"`(.+?)::(\w+)`", named) for number, _, named in rows}
    assert len(tests) == len(rows), "a number is listed twice"
    return {
        number: [(file if "/" in file else f"contracts/{file}", test) for file, test in named]
        for number, named in tests.items()
    }


def test_every_number_that_is_cited_is_listed_and_every_listed_one_is_cited():
    assert len(cited()) > 30
    assert {number: files for number, files in cited().items() if number not in listed()} == {}
    assert sorted(listed()) == sorted(cited())


def test_the_tests_of_the_list_exist_and_stand_in_files_that_cite_the_number():
    for number, tests in listed().items():
        assert tests, number
        for file, name in tests:
            tree = ast.parse((TESTS / file).read_text(encoding="utf-8"))
            assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, (number, file, name)
        assert {file for file, _ in tests} & cited()[number], number


def test_citations_are_found_however_they_are_written():
    word = "contract"
    text = f"({word}s 2, 30 and 4) {word.title()} 5: 17. In {word}s\n    8, and 9"
    assert re.findall(r"\d+", " ".join(CITATION.findall(text))) == ["2", "30", "4", "5", "8", "9"]
