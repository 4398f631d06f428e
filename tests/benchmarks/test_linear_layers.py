"""The benchmark of linear layers: every kind of row runs, and the table has a line for each."""

import pytest

from benchmarks.harness import main
from benchmarks.linear_layers import BENCHMARK, ROWS, table


@pytest.mark.long
def test_every_kind_of_row_runs(capsys):
    chosen = [
        "exponential, C4, 12 channels, 8 images, support 3",
        "spectral, shifts, 12 channels, 8 images, support 3",
        "spectral and exponential, shifts and C4, 12 channels, 8 images, support 3",
    ]
    main(BENCHMARK, ["--quick", "--only", *chosen])
    lines = capsys.readouterr().out.splitlines()
    for start in (
        "| exponential | C4 | 12 | 8 | 3 |",
        "| spectral | shifts | 12 | 8 | 3 | 1 |",
        "| spectral and exponential | shifts and C4 | 12 | 8 | 3 |  |",
    ):
        assert sum(line.startswith(start) for line in lines) == 1


def test_the_table_has_a_line_for_each_row():
    runs = [{**row.labels(), "ratio": [0.5, 1.0, 2.0], "count": 14} for row in ROWS]
    lines = table(ROWS, runs).splitlines()
    assert len(lines) == 2 + len(ROWS) and len({row.name for row in ROWS}) == len(ROWS)
    assert lines[2].endswith("| 14 | 1.00 (0.50-2.00) |") and lines[-1].endswith("|  | 1.00 (0.50-2.00) |")
