"""The table of particles: all designs of a target, those that fall short included."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from benchmarks.harness import RowRuns, Run, grouped, markdown
from benchmarks.harness.benchmark import is_run_of
from benchmarks.particles.problems import TARGETS

__all__ = ["spread", "table"]


def spread(found: RowRuns[Any], figure: str, digits: int) -> str:
    """Mean and standard deviation over seeds; of one seed the figure alone."""
    values = found.values(figure)
    text = f"{statistics.mean(values):.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def with_error(found: RowRuns[Any], figure: str, error: str, digits: int) -> str:
    """Mean and spread over seeds, with the largest standard error of a run where there is one seed."""
    if len(found.runs) > 1:
        return spread(found, figure, digits)
    return f"{found.mean(figure):.{digits}f} ± {found.largest(error):.{digits}f}"


COLUMNS: Sequence[tuple[str, Callable[[RowRuns[Any]], str]]] = [
    ("design", lambda found: found.row.design.name),
    ("trained by", lambda found: found.row.by),
    ("parameters", lambda found: f"{found['parameters']:,}"),
    ("seeds", lambda found: f"{len(found.runs)}"),
    ("CPU minutes", lambda found: f"{found.mean('cpu_seconds') / 60:.1f}"),
    ("steps", lambda found: f"{found.median('steps'):.0f}"),
    ("gap", lambda found: with_error(found, "gap", "gap_error", 3)),
    ("test NLL", lambda found: f"{'≤ ' if found['bound_draws'] else ''}{spread(found, 'nll', 3)}"),
    ("ESS", lambda found: spread(found, "ess", 3)),
    ("forward ESS", lambda found: spread(found, "forward_ess", 3)),
    ("log Z", lambda found: with_error(found, "log_z", "log_z_error", 3)),
    ("exact / own draws", lambda found: f"{found['test_draws']:,} / {found['draws']:,}"),
    ("evaluations a draw", lambda found: f"{found.mean('evaluations'):.0f}"),
    ("100 draws, s", lambda found: f"{found.median('seconds_100_draws'):.3g}"),
]


def variants(row: Any, runs: Sequence[Run]) -> list[Any]:
    """The row with each training time and number of draws of which there are runs, the row's own first."""
    found = {(row.minutes, row.draws): row}
    for run in runs:
        other = replace(row, minutes=run["minutes"], draws=run["draws"])
        if is_run_of(other.labels(), run):
            found.setdefault((other.minutes, other.draws), other)
    return list(found.values())


def table(rows: Sequence[Any], runs: Sequence[Run]) -> str:
    """A table for each target, with all runs of its designs, also of other training times."""
    parts = []
    for name, kind in TARGETS.items():
        target = kind()
        wanted = [variant for row in rows if row.target == name for variant in variants(row, runs)]
        lines = [[cell(group) for _, cell in COLUMNS] for group in grouped(wanted, runs)]
        if lines:
            head = f"### {name.upper()}: entropy {target.floor:.3f}, log Z {target.log_z:.3f}"
            parts.append(f"{head}\n\n{markdown([title for title, _ in COLUMNS], lines, left=(0, 1))}")
    return "\n\n".join(parts)
