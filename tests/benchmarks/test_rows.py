"""The benchmark of rows: every kind of row runs, and the table has the exponents and the ratios."""

import pytest

from benchmarks.harness import main
from benchmarks.rows import BENCHMARK, ROWS, WORK, Cost, table


def test_every_kind_of_row_runs(capsys):
    chosen = ["coupling, 100 rows", "pooled residual, 100 rows", "S6 by structure, coupling, score"]
    main(BENCHMARK, ["--quick", "--only", *chosen])
    lines = capsys.readouterr().out.splitlines()
    for start in ("| coupling | set-up |", "| pooled residual | draw |", "| coupling | score |"):
        assert any(line.startswith(start) for line in lines)


def test_the_table_has_the_exponents_and_the_ratios():
    runs = []
    for row in ROWS:
        figures = dict.fromkeys(WORK, 2.0 * row.count**0.1) if isinstance(row, Cost) else {"ratio": [0.5, 0.7, 0.9]}
        runs.append({**row.labels(), **figures})
    lines = table(ROWS, runs).splitlines()
    assert sum(line.endswith("| 1.10 |") for line in lines) == 8
    assert sum(line.endswith("| 0.70 (0.50-0.90) |") for line in lines) == 4
    assert len({row.name for row in ROWS}) == len(ROWS)


@pytest.mark.parametrize("count", [100, 1_000])
def test_a_table_without_all_counts_has_no_exponent(count):
    row = next(row for row in ROWS if isinstance(row, Cost) and row.count == count)
    assert table(ROWS, [{**row.labels(), **dict.fromkeys(WORK, 1.0)}]).splitlines()[2].endswith("|  |")
