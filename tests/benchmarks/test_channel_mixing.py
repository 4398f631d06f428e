"""The benchmark of channel mixing: a row runs, parameters agree, and the table pairs the runs of one seed."""

import pytest

pytest.importorskip("sklearn", reason="pip install 'pyro-gflows[data]'")
from benchmarks.channel_mixing import BENCHMARK, MIXINGS, ROWS, table
from benchmarks.harness import main
from pyro_gflows.flows.families import build_action, build_flow


@pytest.mark.long
@pytest.mark.parametrize("name", ["coupling-convolution", "coupling-spectral"])
def test_a_row_runs(name, capsys):
    main(BENCHMARK, ["--quick", "--only", name])
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| coupling, 1 seeds")]
    assert f"| {name.split('-')[1]} |" in line


@pytest.mark.parametrize("family", ["coupling", "residual"])
def test_parameters_agree_within_5_percent(family):
    action, counts = build_action("C4", (1, 8, 8)), []
    for row in ROWS:
        if row.family == family:
            flow = build_flow(row.preset.flow, action, size=row.preset.size)
            counts.append(sum(parameter.numel() for parameter in flow.parameters()))
    assert len(counts) == len(MIXINGS) and max(counts) <= 1.05 * min(counts)


def test_differences_are_paired_by_seed():
    figures = {"parameters": 10, "steps": 2, "seconds": 1.0, "invariance_error": 0.0}
    runs = []
    for place, row in enumerate(ROWS):
        for seed in (0, 1):
            value = 2.0 + seed - 0.1 * place - 0.02 * place * seed
            runs.append({**row.labels(), "seed": seed, "validation": value, "test": value + 1, **figures})
    lines = table(ROWS, [run for run in runs if (run["name"], run["seed"]) != ("residual-spectral", 1)]).splitlines()
    assert len(lines) == 2 + len(ROWS)
    assert lines[2].endswith("| 2.5000 | 3.5000 |  |  |")
    assert lines[3].endswith("| -0.1100 +- 0.0100 (-11.0 SE) | -0.1100 +- 0.0100 (-11.0 SE) |")
    assert lines[7].startswith("| residual, 1 seeds | spectral |") and lines[7].endswith("| -0.2000 | -0.2000 |")
