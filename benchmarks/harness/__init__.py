"""What the benchmarks share: the command, the file of finished runs, tables in Markdown, and clocks.

A benchmark says what its rows are, how one of them is run, and what its table shows; the rest is here. How to write one
is in ``benchmarks/README.md``.
"""

from benchmarks.harness.benchmark import Benchmark, Figures, Row, Run, Seeds
from benchmarks.harness.command import main
from benchmarks.harness.store import Store
from benchmarks.harness.tables import (
    CPU_SECONDS,
    INVARIANCE,
    PARAMETERS,
    SECONDS,
    SEEDS,
    STEPS,
    Column,
    RowRuns,
    columns,
    grouped,
    markdown,
    mean_and_error,
)
from benchmarks.harness.timing import Stopwatch, cpu_seconds, interleaved_ratios

__all__ = [
    "CPU_SECONDS",
    "INVARIANCE",
    "PARAMETERS",
    "SECONDS",
    "SEEDS",
    "STEPS",
    "Benchmark",
    "Column",
    "Figures",
    "Row",
    "RowRuns",
    "Run",
    "Seeds",
    "Stopwatch",
    "Store",
    "columns",
    "cpu_seconds",
    "grouped",
    "interleaved_ratios",
    "main",
    "markdown",
    "mean_and_error",
]
