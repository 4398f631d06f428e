"""The benchmark of peers: its rows are distinct, it measures what it says, and README has the table of its runs."""

import json
import sys

import pytest
import torch

from benchmarks.harness import Store, main
from benchmarks.harness.command import RESULTS
from benchmarks.peers import race
from benchmarks.peers.benchmark import BENCHMARK
from benchmarks.peers.clocks import interleaved, quartiles
from benchmarks.peers.contest import Contest, Entry
from benchmarks.peers.readme import BEGIN, END, README, performance_table, with_table
from benchmarks.peers.rows import ROWS
from benchmarks.peers.table import table

STORED = RESULTS / "peers.jsonl"


def worker(units):
    """A side that computes for a multiple of some time."""

    def make(device):
        return Entry(lambda: sum(range(1000 * units)), parameters=units, facts={"error": float(units)})

    return make


def absent(device):
    import a_library_that_is_not_there  # noqa: F401

    raise AssertionError


def contest(**keywords):
    keywords = {"slice_seconds": 0.002, **keywords}
    sides = {"ours": {"ours, slow": worker(40)}, "peers": {"fast": worker(10), "absent": absent}}
    return Contest("family", "task", "size", **sides, **keywords)


def test_every_row_has_a_name_and_both_devices():
    assert len({row.name for row in ROWS}) == len(ROWS)
    labels = [json.dumps(row.labels(), sort_keys=True) for row in ROWS]
    assert len(set(labels)) == len(ROWS)
    assert sum(row.device == "cuda" for row in ROWS) == len(ROWS) // 2


@pytest.mark.parametrize("row", [row for row in ROWS if isinstance(row, Contest)], ids=lambda row: row.name)
def test_limits_and_notes_are_of_sides_that_are_there(row):
    pairs = {(mine, peer) for mine in row.ours for peer in row.peers}
    assert set(row.limits) <= set(row.compared or pairs) <= pairs
    assert set(row.notes) <= {"ours", *row.peers}
    assert all(set(compared) <= pairs for compared in row.facts.values())


def test_works_are_timed_in_turn():
    order = []
    works = {name: lambda name=name: order.append(name) for name in "ab"}
    found = interleaved(works, device=torch.device("cpu"), rounds=4, slice_seconds=0.0)
    assert [len(values) for values in found.values()] == [4, 4]
    assert "".join(order[-8:]) == "abbaabba"


def test_long_calls_have_fewer_rounds():
    def work():
        return sum(range(100_000))

    found = interleaved({"a": work}, device=torch.device("cpu"), rounds=50, slice_seconds=0.0, most_seconds=1e-9)
    assert len(found["a"]) == 3


def test_quartiles():
    assert quartiles([1.0, 2.0, 3.0, 4.0, 5.0]) == (2.0, 3.0, 4.0)


@pytest.mark.parametrize(("limit", "verdict"), [(100.0, "met"), (1.0, "missed")])
def test_a_limit_is_stored_beside_the_ratio_and_changes_nothing(limit, verdict):
    run = contest(limits={("ours, slow", "fast"): limit}).measure(quick=False)
    (pair,) = run["pairs"]
    assert (pair["limit"], pair["verdict"]) == (limit, verdict)
    assert 2.0 < pair["ratio"][1] < 8.0  # four times the work
    low, middle, high = pair["ratio"]
    assert low <= middle <= high
    assert run["rounds"] == 15


def test_a_peer_that_is_not_installed_is_left_out_with_a_word(capsys):
    run = contest().measure(quick=True)
    assert [pair["peer"] for pair in run["pairs"]] == ["fast"]
    assert "pip install 'pyro-gflows[bench]'" in run["missing"]["absent"]
    assert "a_library_that_is_not_there" in capsys.readouterr().out
    row = contest()
    assert "not installed" in table([row], [{**row.labels(), **run, "threads": 1}])


def test_facts_are_compared_too():
    run = contest(facts={"error": {("ours, slow", "fast"): 1.0}}).measure(quick=True)
    (pair,) = [pair for pair in run["pairs"] if pair.get("unit") == "error"]
    assert (pair["values"], pair["ratio"], pair["verdict"]) == ([40.0, 10.0], [4.0] * 3, "missed")


def test_rows_without_runs_are_not_measured():
    text = table([contest(), contest().on("cuda")], [])
    assert text.count("Not measured: family, task.") == 2


def test_a_device_that_is_not_there_is_refused(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(SystemExit):
        main(BENCHMARK, ["--device", "cuda", "--quick"])
    assert "no CUDA device" in capsys.readouterr().err


@pytest.mark.long
@pytest.mark.parametrize("name", ["residual layer, d = 2", "convolution, batch 1, forward, cpu"])
def test_our_side_runs_without_any_peer(name, monkeypatch, capsys):
    for module in ("normflows", "zuko", "nflows", "FrEIA", "torchdiffeq"):
        monkeypatch.setitem(sys.modules, module, None)  # as where it is not installed
    main(BENCHMARK, ["--quick", "--only", name])
    assert "## CPU" in capsys.readouterr().out


@pytest.mark.long
def test_a_race_measures_the_gap_to_the_exact_density():
    """Of a flow that is the exact density the gap is 0, and the evaluations are counted."""
    target = race.density(race.TARGET)
    runner = race.Runner(torch.nn.Identity(), target.log_prob, 1e-2, lambda: 7)
    found = race.measure(runner, target, points=race.CHUNK, device=torch.device("cpu"))
    assert found == {"gap": 0.0, "error": 0.0, "evaluations": 7.0}
    shifted = race.Runner(torch.nn.Identity(), lambda x: target.log_prob(x) - 0.25, 1e-2, lambda: 7)
    found = race.measure(shifted, target, points=race.CHUNK, device=torch.device("cpu"))
    assert found["gap"] == pytest.approx(0.25, abs=1e-5)


@pytest.mark.long
def test_training_takes_at_least_the_time_that_it_is_given():
    ours = next(iter(race.RACES[0].ours.values()))
    runner = ours(torch.device("cpu"))
    clock = race.time.process_time
    began = clock()
    steps = race.train(runner, race.density(race.TARGET), seconds=0.3, device=torch.device("cpu"))
    assert steps >= 1 and clock() - began >= 0.3
    assert runner.evaluations() == 10


def test_the_readme_has_the_table_of_the_stored_runs():
    text = README.read_text(encoding="utf-8")
    assert with_table(text, performance_table(Store(STORED).runs)) == text


def test_a_table_takes_the_place_between_the_markers():
    page = f"before\n{BEGIN}\nold\n{END}\nafter"
    assert with_table(page, "new") == f"before\n{BEGIN}\nnew\n{END}\nafter"
    with pytest.raises(ValueError, match="markers"):
        with_table("no markers", "new")


def test_the_page_of_results_is_that_of_the_stored_runs():
    assert STORED.with_suffix(".md").read_text(encoding="utf-8") == table(ROWS, Store(STORED).runs) + "\n"


def test_a_table_of_one_run_says_what_was_not_measured():
    run = {
        **ROWS[0].labels(),
        "pairs": [],
        "processor": "a processor",
        "torch": "2",
        "threads": 1,
    }
    text = performance_table([run])
    assert "not measured" in text and "CUDA: not measured" in text
    assert text.startswith("|  | compared with |")
