"""The benchmark of inverses: every kind of row runs, and the table has a line for each."""

import pytest
import torch

from benchmarks.harness import main
from benchmarks.inverses import BENCHMARK, KINDS, ROWS, Row, layer_of, table


@pytest.mark.long
def test_every_kind_of_row_runs(capsys):
    chosen = [f"{kind}, {states}, 0.9" for kind in list(KINDS)[1:4] for states in KINDS[kind].states]
    main(BENCHMARK, ["--quick", "--only", *chosen])
    lines = capsys.readouterr().out.splitlines()
    for name in chosen:
        start = "| " + " | ".join(name.rsplit(", ", 2))
        assert sum(line.startswith(start) for line in lines) == 1


def test_steep_layers_come_close_to_their_bound():
    row = Row("vector, regular C4, d = 16", "steep", 0.97)
    layer = layer_of(row)
    jacobian = layer.branch.call_and_jacobian(torch.randn(5, 16, dtype=torch.float64))[1]
    assert 0.6 < torch.linalg.matrix_norm(jacobian, 2).max() <= 0.97


def test_the_table_has_a_line_for_each_row():
    figures = {"solver": "AndersonSolver", "evaluations": 8, "banach": 30, "time": [0.2, 0.3, 0.4]}
    lines = table(ROWS, [{**row.labels(), **figures} for row in ROWS]).splitlines()
    assert len(lines) == 2 + len(ROWS) and len({row.name for row in ROWS}) == len(ROWS)
    assert lines[2].endswith("| AndersonSolver | 8 | 30 | 0.30 (0.20-0.40) |")
