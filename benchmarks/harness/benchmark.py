"""What a benchmark is: rows, how one of them is run, and the table of all runs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

__all__ = ["Benchmark", "Figures", "Row", "Run", "Seeds", "is_run_of"]

Figures = Mapping[str, Any]
"""What was measured in one run: numbers, or whatever else JSON holds."""

Run = Mapping[str, Any]
"""One finished run as its file has it: the labels of its row, its seed, and its figures."""


class Row(Protocol):
    """One setting that is compared, usually a frozen dataclass."""

    @property
    def name(self) -> str:
        """What ``--only`` calls it."""
        ...

    def labels(self) -> Mapping[str, Any]:
        """What tells its runs from those of other rows, and from earlier ones with other settings.

        A run in the file belongs to the row if all of these agree; so whatever changes the outcome is among them.
        """
        ...


R = TypeVar("R", bound=Row)
R_in = TypeVar("R_in", bound=Row, contravariant=True)


class RunRow(Protocol[R_in]):
    """Runs a row once."""

    def __call__(self, row: R_in, /, *, seed: int, quick: bool) -> Figures:
        """The figures; with ``quick`` as little work as shows that all of it runs."""
        ...


@dataclass(frozen=True)
class Seeds:
    """Which repetitions of every row there are: ``first``, ``first + 1`` and so on.

    Attributes:
        count: How many, unless the command says otherwise.
        first: The first of them.
        word: What the file and the command call one, such as "observation"; the option has an "s" appended.
    """

    count: int = 1
    first: int = 0
    word: str = "seed"


def nothing_more(parser: argparse.ArgumentParser) -> None:
    """No options besides those of every benchmark."""


@dataclass(frozen=True)
class Benchmark(Generic[R]):
    """Rows, how to run one, and the table.

    Attributes:
        name: Its runs are ``results/NAME.jsonl``, its table ``results/NAME.md``.
        about: The text of ``--help``, usually the module's docstring.
        rows: All rows, in the order of the table.
        run: Runs one of them.
        table: Markdown from the rows and all finished runs; ``columns`` makes one.
        seeds: The repetitions; None if there is nothing random to repeat.
        kept: Whether runs are kept in a file. Times that compare code on the machine at hand are not.
        more_options: Adds options of this benchmark alone to the parser.
        choose: The rows that the parsed options ask for, if other than ``rows``; ``--only`` then chooses among them.
        after: Called with all runs and the folder of the results once they are complete, to draw a figure, say.
    """

    name: str
    about: str | None
    rows: Sequence[R]
    run: RunRow[R]
    table: Callable[[Sequence[R], Sequence[Run]], str]
    seeds: Seeds | None = None
    kept: bool = True
    more_options: Callable[[argparse.ArgumentParser], None] = nothing_more
    choose: Callable[[argparse.Namespace], Sequence[R]] | None = None
    after: Callable[[Sequence[Run], Path], None] | None = None

    def labels(self, row: R, seed: int) -> dict[str, Any]:
        """What identifies a run of that row from that seed."""
        repetition = {self.seeds.word: seed} if self.seeds else {}
        return {**row.labels(), **repetition}

    def is_done(self, row: R, seed: int, runs: Iterable[Run]) -> bool:
        """Whether the run is among those that are finished."""
        wanted = self.labels(row, seed)
        return any(is_run_of(wanted, run) for run in runs)


def is_run_of(labels: Mapping[str, Any], run: Run) -> bool:
    """Whether a run has all of these labels."""
    return all(key in run and run[key] == value for key, value in labels.items())
