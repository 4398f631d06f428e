"""The harness of the benchmarks: a stopped command goes on, damaged files are handled, stored tables are rebuilt."""

import importlib
import json
from dataclasses import dataclass
from pathlib import Path

import pytest

pytest.importorskip("sklearn", reason="pip install 'pyro-gflows[data]'")
from benchmarks.harness import Benchmark, Column, Seeds, Store, columns, main
from benchmarks.harness.command import chosen_rows, make_parser

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
STORED = sorted(path.stem for path in RESULTS.glob("*.jsonl"))
ALL = [*STORED, "linear_layers", "overhead", "step_times"]


@dataclass(frozen=True)
class Row:
    name: str

    def labels(self):
        return {"name": self.name}


def benchmark(run):
    table = columns(
        Column("row", lambda found: found.row.name, left=True), Column("x", lambda found: f"{found.mean('x')}")
    )
    return Benchmark("example", "An example.", [Row("a"), Row("ab"), Row("c")], run, table, seeds=Seeds(2))


def test_a_stopped_command_goes_on_with_what_is_missing(tmp_path, capsys):
    ran = []

    def run(row, *, seed, quick):
        if len(ran) == 3:
            ran.append("stop")
            raise KeyboardInterrupt
        ran.append((row.name, seed))
        return {"x": seed}

    with pytest.raises(SystemExit) as stopped:
        main(benchmark(run), ["--results", str(tmp_path)])
    assert stopped.value.code == 130 and len(Store(tmp_path / "example.jsonl").runs) == 3
    main(benchmark(run), ["--results", str(tmp_path)])
    ran.remove("stop")
    assert ran == [(name, seed) for seed in (0, 1) for name in ("a", "ab", "c")]
    assert "| ab | 0.5 |" in (tmp_path / "example.md").read_text()
    main(benchmark(run), ["--results", str(tmp_path)])
    assert len(ran) == 6


@pytest.mark.parametrize(
    "options, expected",
    [
        (["--only", "a", "--seed", "7"], [("a", 7)]),
        (["--only", "b"], [("ab", 0), ("ab", 1)]),
        (["--quick"], [("a", 0), ("ab", 0), ("c", 0)]),
    ],
)
def test_rows_and_seeds_are_chosen(options, expected, tmp_path):
    ran = []
    main(
        benchmark(lambda row, *, seed, quick: ran.append((row.name, seed)) or {"x": 1}),
        [*options, "--results", str(tmp_path)],
    )
    assert ran == expected
    assert (tmp_path / "example.jsonl").exists() == ("--quick" not in options)


@pytest.mark.parametrize(
    "options, message",
    [
        (["--only", "z"], "no row is called 'z'"),
        (["--seeds", "0"], "expected a whole number of at least 1"),
        (["--table"], "no finished runs"),
    ],
)
def test_a_wrong_argument_is_named(options, message, tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(benchmark(None), [*options, "--results", str(tmp_path)])
    assert message in capsys.readouterr().err


def test_an_unfinished_last_line_is_dropped_and_replaced(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"seed": 0}\n{"see')
    with pytest.warns(UserWarning, match="unfinished last line"):
        store = Store(path)
    assert store.runs == [{"seed": 0}]
    store.append({"seed": 1})
    assert path.read_text() == '{"seed": 0}\n{"seed": 1}\n'


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"seed": 0}')
    Store(path).append({"seed": 1})
    assert [json.loads(line)["seed"] for line in path.read_text().splitlines()] == [0, 1]


def test_a_damaged_line_elsewhere_is_an_error(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"se\n{"seed": 1}\n')
    with pytest.raises(ValueError, match="in line 1 of"):
        Store(path)


@pytest.mark.parametrize("name", STORED)
@pytest.mark.all_cases
def test_the_committed_table_is_that_of_the_committed_runs(name):
    own = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    text = own.table(own.rows, Store(RESULTS / f"{name}.jsonl").runs)
    assert text + "\n" == (RESULTS / f"{name}.md").read_text()


# two branches were added to the list and never fitted; off_grid was run for three seeds of five
@pytest.mark.parametrize("name", [name for name in STORED if name not in ("branches", "off_grid")])
def test_the_committed_runs_are_known_as_done(name):
    own = importlib.import_module(f"benchmarks.{name}").BENCHMARK
    runs = Store(RESULTS / f"{name}.jsonl").runs
    first = own.seeds.first if own.seeds else 0
    parser = make_parser(own)
    rows = chosen_rows(own, parser.parse_args([]), parser)  # without options: on the CPU
    assert rows and all(own.is_done(row, first, runs) for row in rows)


@pytest.mark.parametrize("name", ALL)
def test_every_benchmark_explains_its_options(name, capsys):
    with pytest.raises(SystemExit) as left:
        main(importlib.import_module(f"benchmarks.{name}").BENCHMARK, ["--help"])
    out = capsys.readouterr().out
    assert left.value.code == 0 and f"python -m benchmarks.{name}" in out and "--quick" in out


def test_a_smoke_run_keeps_nothing(capsys):
    before = (RESULTS / "off_grid.jsonl").read_bytes()
    main(importlib.import_module("benchmarks.off_grid").BENCHMARK, ["--quick", "--only", "O(2)"])
    assert "| O(2) | 311 |" in capsys.readouterr().out
    assert (RESULTS / "off_grid.jsonl").read_bytes() == before


def test_the_example_in_the_readme_runs(capsys, monkeypatch):
    page = (RESULTS.parent / "README.md").read_text()
    code = page.split("```python\n")[1].split("```")[0]
    monkeypatch.setattr("sys.argv", ["means", "--quick", "--only", "many"])
    exec(code, {"__name__": "__main__", "__doc__": "An example."})
    assert "| 10000 | 1 |" in capsys.readouterr().out
