"""Tables in Markdown from finished runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from benchmarks.harness.benchmark import Row, Run, is_run_of

__all__ = [
    "CPU_SECONDS",
    "INVARIANCE",
    "PARAMETERS",
    "SECONDS",
    "SEEDS",
    "STEPS",
    "Column",
    "RowRuns",
    "columns",
    "grouped",
    "markdown",
    "mean_and_error",
]

_ALIGNED = {"left": "---", "right": "---:"}

R = TypeVar("R", bound=Row)


def markdown(head: Sequence[str], lines: Iterable[Sequence[str]], *, left: Iterable[int] = (0,)) -> str:
    """A table in Markdown.

    Args:
        head: The titles of the columns.
        lines: The cells of each line.
        left: Which columns are aligned left, as text is; the others are aligned right, as numbers are.

    Raises:
        ValueError: If a line has not a cell for each column.

    Example:
        >>> print(markdown(["flow", "gap"], [["rings", "0.001"]]))
        | flow | gap |
        | --- | ---: |
        | rings | 0.001 |
    """
    left, lines = set(left), [list(line) for line in lines]
    for line in lines:
        if len(line) != len(head):
            raise ValueError(f"expected {len(head)} cells, one for each of {list(head)}, got {line}")
    rule = [_ALIGNED["left" if place in left else "right"] for place in range(len(head))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (head, rule, *lines))


@dataclass(frozen=True)
class RowRuns(Generic[R]):
    """A row with its finished runs, of which there is at least one."""

    row: R
    runs: Sequence[Run]

    def __getitem__(self, figure: str) -> Any:
        """A figure that is the same in all runs, such as a number of parameters: that of the first."""
        return self.runs[0][figure]

    def values(self, figure: str) -> list[float]:
        """That figure of each run."""
        return [run[figure] for run in self.runs]

    def median(self, figure: str) -> float:
        """Its median over the runs."""
        return statistics.median(self.values(figure))

    def mean(self, figure: str) -> float:
        """Its mean over the runs."""
        return statistics.mean(self.values(figure))

    def least(self, figure: str) -> float:
        """The least over the runs."""
        return min(self.values(figure))

    def largest(self, figure: str) -> float:
        """The largest over the runs."""
        return max(self.values(figure))


def grouped(rows: Iterable[R], runs: Sequence[Run]) -> list[RowRuns[R]]:
    """The rows of which there are runs, with these; what belongs to no row (any more) is left out."""
    found = ((row, [run for run in runs if is_run_of(row.labels(), run)]) for row in rows)
    return [RowRuns(row, own) for row, own in found if own]


@dataclass(frozen=True)
class Column(Generic[R]):
    """One column of a table that has a line for each row.

    Attributes:
        title: Its head.
        cell: Its text for a row and the runs of that row.
        left: Whether it is aligned left, as text is.
    """

    title: str
    cell: Callable[[RowRuns[R]], str]
    left: bool = False


#: Columns that several tables have.
PARAMETERS: Column[Any] = Column("parameters", lambda found: f"{found['parameters']}")
STEPS: Column[Any] = Column("steps", lambda found: f"{found['steps']}")
SEEDS: Column[Any] = Column("seeds", lambda found: f"{len(found.runs)}")
CPU_SECONDS: Column[Any] = Column("CPU seconds", lambda found: f"{found.median('cpu_seconds'):.0f}")
SECONDS: Column[Any] = Column(
    "seconds, wall (CPU)", lambda found: f"{found.median('seconds'):.0f} ({found.median('cpu_seconds'):.0f})"
)
INVARIANCE: Column[Any] = Column("invariance error, mean", lambda found: f"{found.mean('invariance_error'):.1e}")


def columns(*chosen: Column[R]) -> Callable[[Sequence[R], Sequence[Run]], str]:
    """A table with a line for each row of which there are runs."""

    def table(rows: Sequence[R], runs: Sequence[Run]) -> str:
        lines = [[column.cell(group) for column in chosen] for group in grouped(rows, runs)]
        left = [place for place, column in enumerate(chosen) if column.left]
        return markdown([column.title for column in chosen], lines, left=left)

    return table


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and its standard error, which is nan for one seed."""
    error = statistics.stdev(values) / math.sqrt(len(values)) if len(values) > 1 else math.nan
    return statistics.mean(values), error
