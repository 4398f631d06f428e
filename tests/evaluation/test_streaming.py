"""Scores and samples in shards: the same as in one piece, in constant memory, and the same after an interruption."""

import json
import math
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
from pyro_gflows.evaluation import ScoreReport, StreamSettings, log_probs, sample_rows, score_rows
from pyro_gflows.experiments.runs import draw
from tests.small_flows import points, small_flow

ROOT = Path(__file__).parents[2]
FEW = StreamSettings(shard_rows=700, batch_size=128)


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def flow():
    return small_flow()


def test_scores_in_shards_are_those_in_one_piece(flow, tmp_path):
    x = points(2500)
    whole = log_probs(flow, x)
    np.save(tmp_path / "x.npy", x.numpy())
    (tmp_path / "parts").mkdir()
    for number, part in enumerate(x.split(900)):
        np.save(tmp_path / "parts" / f"{number}.npy", part.numpy())
    for number, rows in enumerate((x, x.numpy(), str(tmp_path / "x.npy"), tmp_path / "parts")):
        folder = tmp_path / f"out{number}"
        report = score_rows(flow, rows, out=folder, settings=FEW)
        assert (report.rows, report.shards, report.resumed) == (2500, 4, 0)
        assert report.total == pytest.approx(math.fsum(whole.tolist()), rel=1e-13)
        assert report.nll == pytest.approx(-float(whole.mean()), rel=1e-13)
        shards = [np.load(path) for path in sorted(folder.glob("*.npy"))]
        assert [len(shard) for shard in shards] == [700, 700, 700, 400]
        torch.testing.assert_close(torch.from_numpy(np.concatenate(shards)), whole, rtol=1e-12, atol=1e-12)


def test_the_sum_of_float32_scores_depends_on_neither_shards_nor_batches():
    action = VectorAction.signs(8)
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
    x = torch.randn(200_000, 8, generator=torch.Generator().manual_seed(1))
    exact = math.fsum(log_probs(flow, x).double().tolist())
    for shard_rows, batch_size in ((2**17, 1024), (3000, 1024), (50_001, 17_000)):
        report = score_rows(flow, x, settings=StreamSettings(shard_rows=shard_rows, batch_size=batch_size))
        assert abs(report.total / exact - 1) < 1e-10


@pytest.mark.parametrize("ending", [".npy", ".csv"])
def test_one_file_has_the_bytes_that_numpy_writes(ending, flow, tmp_path):
    x, path, expected = points(2500), tmp_path / f"scores{ending}", tmp_path / f"expected{ending}"
    report = score_rows(flow, x, out=path, settings=FEW)
    scores = np.concatenate([log_probs(flow, part, batch_size=128).numpy() for part in x.split(700)])
    np.save(expected, scores) if ending == ".npy" else np.savetxt(expected, scores, delimiter=",")
    assert path.read_bytes() == expected.read_bytes()
    assert report.total == pytest.approx(scores.sum(), rel=1e-13)
    assert {entry.name for entry in tmp_path.iterdir()} == {path.name, expected.name}  # nothing else is left


def test_few_samples_are_those_of_one_draw_and_later_shards_are_others(flow, tmp_path):
    sample_rows(flow, 500, tmp_path / "s.npy", settings=StreamSettings(seed=5))
    assert np.array_equal(np.load(tmp_path / "s.npy"), draw(flow, 500, seed=5).numpy())
    sample_rows(flow, 500, tmp_path / "parts", settings=StreamSettings(seed=5, shard_rows=200))
    first, second, third = (np.load(path) for path in sorted((tmp_path / "parts").glob("*.npy")))
    assert np.array_equal(first, draw(flow, 200, seed=5).numpy())
    assert third.shape == (100, 2) and not np.isin(second, first).any() and not np.isin(third, second).any()
    both = np.concatenate([first, second, third])
    assert abs(both.mean()) < 0.3 and both.std() > 0.5


def test_samples_are_written_as_a_function_of_them(flow, tmp_path):
    halves = StreamSettings(shard_rows=30)
    sample_rows(flow, 60, tmp_path / "s.npy", finish=lambda x: x.numpy()[:, :1].astype(np.float16), settings=halves)
    stored = np.load(tmp_path / "s.npy")
    assert stored.dtype == np.float16 and stored.shape == (60, 1)
    assert np.array_equal(stored[:30], draw(flow, 30).numpy()[:, :1].astype(np.float16))


def test_the_random_state_of_the_caller_is_kept(flow, tmp_path):
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    sample_rows(flow, 50, tmp_path / "s.npy")
    score_rows(flow, points(50))
    assert torch.equal(torch.rand(3), expected)


def test_preparations_draw_by_shard_and_not_by_process_or_batch(flow, tmp_path):
    def with_noise(block, generator):
        return block + torch.rand(block.shape, generator=generator, dtype=block.dtype)

    x = points(900)
    once = StreamSettings(shard_rows=300, seed=2)
    report = score_rows(flow, x, out=tmp_path / "a", prepare=with_noise, settings=once)
    generator = torch.Generator().manual_seed(2)
    torch.testing.assert_close(
        torch.from_numpy(np.load(tmp_path / "a" / "shard-00000.npy")), log_probs(flow, with_noise(x[:300], generator))
    )
    # the same after a shard is lost, and other noise with another seed
    (tmp_path / "a" / ".shard-00001.json").unlink()
    again = score_rows(
        flow, x, out=tmp_path / "a", prepare=with_noise, settings=StreamSettings(shard_rows=300, seed=2, resume=True)
    )
    assert again == ScoreReport(900, report.total, 3, resumed=2)
    other = score_rows(flow, x, prepare=with_noise, settings=StreamSettings(shard_rows=300, seed=3))
    assert other.total != report.total


def test_a_run_that_went_on_has_the_files_of_an_unbroken_one_and_keeps_what_was_done(flow, tmp_path):
    x, resume = points(2500), StreamSettings(shard_rows=700, batch_size=128, resume=True)
    whole = score_rows(flow, x, out=tmp_path / "whole", settings=FEW)
    score_rows(flow, x, out=tmp_path / "part", settings=FEW)
    before = contents(tmp_path / "part")
    (tmp_path / "part" / ".shard-00002.json").unlink()  # written, but not known to be complete
    (tmp_path / "part" / "shard-00003.npy").unlink()
    (tmp_path / "part" / ".shard-00003.npy.123.tmp").write_bytes(b"half of it")  # by a process that was killed
    kept = (tmp_path / "part" / "shard-00001.npy").stat().st_mtime_ns
    report = score_rows(flow, x, out=tmp_path / "part", settings=resume)
    assert (report.total, report.resumed) == (whole.total, 2)
    assert contents(tmp_path / "part") == contents(tmp_path / "whole") == before
    assert (tmp_path / "part" / "shard-00001.npy").stat().st_mtime_ns == kept


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": small_flow(seed=1)}, "another flow"),
        ({"x": points(2500, seed=1)}, "another data"),
        ({"x": points(2400)}, "another data and another number of rows"),
        ({"settings": {"seed": 1}}, "another seed"),
        ({"settings": {"shard_rows": 500}}, "another number of rows of a shard"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_shards_of_another_run_are_refused_and_left_alone(change, message, flow, tmp_path):
    score_rows(flow, points(2500), out=tmp_path / "out", settings=FEW)
    before = contents(tmp_path / "out")
    settings = StreamSettings(**{"shard_rows": 700, "resume": True, **change.get("settings", {})})
    with pytest.raises(ValueError, match=f"cannot resume: .*{message}.* give the same"):
        score_rows(change.get("flow", flow), change.get("x", points(2500)), out=tmp_path / "out", settings=settings)
    with pytest.raises(ValueError, match="holds shards already"):
        sample_rows(flow, 10, tmp_path / "out")
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda flow, at: score_rows(flow, torch.zeros(0, 2)), ValueError, "empty"),
        (lambda flow, at: score_rows(flow, torch.zeros(5, 3)), ValueError, r"expected event shape \(2,\), received"),
        (lambda flow, at: score_rows(flow, torch.zeros(5, 2, dtype=torch.int64)), TypeError, "floating-point"),
        (lambda flow, at: score_rows(flow, [[1.0, 2.0]]), TypeError, "expected a tensor or an array"),
        (lambda flow, at: score_rows(flow, at / "none.npy"), ValueError, "no such file"),
        (lambda flow, at: score_rows(flow, points(5), out=at / "s.png"), ValueError, "end in .npy or .csv"),
        (lambda flow, at: score_rows(flow, points(5), out=at / "no" / "s.npy"), ValueError, "no such folder"),
        (lambda flow, at: score_rows(flow, points(5), settings=StreamSettings(resume=True)), ValueError, "out"),
        (lambda flow, at: sample_rows(flow, 0, at / "s.npy"), ValueError, "positive number of samples"),
        (
            lambda flow, at: sample_rows(flow, 10**6, at / "s.npy", settings=StreamSettings(shard_rows=9)),
            ValueError,
            "at most 100,000 shards, got 111,112",
        ),
        (lambda flow, at: StreamSettings(shard_rows=0), ValueError, "shard_rows >= 1"),
        (lambda flow, at: StreamSettings(batch_size=0), ValueError, "batch_size >= 1"),
    ],
)
def test_bad_input(call, error, message, flow, tmp_path):
    with pytest.raises(error, match=message):
        call(flow, tmp_path)
    assert not any(tmp_path.iterdir())


def test_a_row_that_is_not_finite_is_named_also_behind_a_preparation(flow, tmp_path):
    x = points(1000)
    x[801, 1] = math.nan
    with pytest.raises(ValueError, match="row 801 holds nan"):
        score_rows(flow, x, settings=FEW)
    with pytest.raises(ValueError, match="row 801 holds nan"):
        score_rows(flow, x, out=tmp_path / "out", prepare=lambda block, generator: block, settings=FEW)
    assert set(contents(tmp_path / "out")) == {"shard-00000.npy", ".shard-00000.json"}  # and no part of the second


def test_an_infinite_log_density_is_kept(tmp_path):
    class Box(torch.nn.Module):
        def forward(self, x):
            return torch.where(x.abs() < 1, 0.0, -math.inf).sum(-1)

    report = score_rows(Box(), torch.tensor([[0.5], [2.0]]), out=tmp_path / "out")
    assert report.total == -math.inf
    resumed = score_rows(
        Box(), torch.tensor([[0.5], [2.0]]), out=tmp_path / "out", settings=StreamSettings(resume=True)
    )
    assert resumed.total == -math.inf and resumed.resumed == 1
    assert json.loads((tmp_path / "out" / ".shard-00000.json").read_text())["total"] == "-inf"


MEMORY = """
    import resource, sys
    import torch
    from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
    from pyro_gflows.evaluation import sample_rows, score_rows

    def peak():
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

    action = VectorAction.signs(8)
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
    few, many, folder = sys.argv[1:]
    score_rows(flow, few, out=folder + "/few_scores.npy")
    sample_rows(flow, 100_000, folder + "/few_samples.npy")
    before = peak()
    report = score_rows(flow, many, out=folder + "/scores.npy")
    sample_rows(flow, 1_000_000, folder + "/samples.npy")
    print(peak() - before, repr(report.total))
"""


def grown_and_total(tmp_path, rows):
    """How many MB the memory of a process grows by scoring so many rows, and their sum."""
    generator = np.random.default_rng(0)
    np.save(tmp_path / "few.npy", generator.standard_normal((100_000, 8), dtype=np.float32))
    many = np.lib.format.open_memmap(tmp_path / "many.npy", "w+", np.float32, (rows, 8))
    for start in range(0, rows, 500_000):
        many[start : start + 500_000] = generator.standard_normal((500_000, 8), dtype=np.float32)
    command = [sys.executable, "-c", textwrap.dedent(MEMORY), str(tmp_path / "few.npy"), str(tmp_path / "many.npy")]
    done = subprocess.run([*command, str(tmp_path)], capture_output=True, text=True, check=True, cwd=ROOT, timeout=180)
    grown, total = done.stdout.split()
    return int(grown), float(total)


def in_closed_form(path):
    """The log-density of a standard normal, summed over all rows."""
    x = np.load(path, mmap_mode="r")
    return -0.5 * sum(float(np.square(part, dtype=np.float64).sum()) for part in np.array_split(x, 20)) - 4 * len(
        x
    ) * math.log(2 * math.pi)


@pytest.mark.long
def test_memory_does_not_grow_with_the_file(tmp_path):
    """The file has 48 MB, its scores 12 MB and the samples 32 MB."""
    grown, total = grown_and_total(tmp_path, 1_500_000)
    assert grown < 20
    assert total == pytest.approx(in_closed_form(tmp_path / "many.npy"), rel=1e-7)
    assert np.load(tmp_path / "samples.npy", mmap_mode="r").shape == (1_000_000, 8)


@pytest.mark.slow
def test_ten_million_rows_have_the_sum_of_one_piece_in_constant_memory(tmp_path):
    """The file has 320 MB."""
    grown, total = grown_and_total(tmp_path, 10_000_000)
    assert grown < 50
    scores = np.load(tmp_path / "scores.npy")
    assert scores.shape == (10_000_000,)
    assert abs(total / math.fsum(scores.tolist()) - 1) < 1e-10
    assert total == pytest.approx(in_closed_form(tmp_path / "many.npy"), rel=1e-7)
