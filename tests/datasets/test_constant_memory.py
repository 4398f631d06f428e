"""The memory that a fit to files needs does not grow with the files (contract 55)."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_gflows.datasets import check_data, open_rows
from pyro_gflows.datasets.checks import check_rows
from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.training import FitDiverged, FitSettings, fit
from pyro_gflows.training.identity import fingerprint
from tests.small_flows import points, small_flow

ROOT = Path(__file__).parents[2]
LINUX = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="peaks of memory are read from /proc")

FITTED = """
    import json, re, sys
    from pathlib import Path
    import numpy as np, torch
    torch.set_num_threads(1)
    from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
    from pyro_gflows.datasets.rows import as_rows
    from pyro_gflows.training import FitSettings, Validation, fit

    def peak():
        return int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000

    folder = Path(sys.argv[1])
    action = VectorAction.trivial("C1", copies=8)
    settings = FitSettings(steps=120, batch_size=512, validation=Validation(60))
    few = np.load(folder / "few.npy", mmap_mode="r")
    peaks, totals = [], []
    many = np.load(folder / "many.npy", mmap_mode="r")
    for data in (few, many, folder / "shards", many[:, ::-1]):
        flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
        fit(flow, data, validation=few[:5000], settings=settings, folder=folder / "run", progress=False)
        totals.append(float(sum(block.double().sum() for block in as_rows(data).blocks())))
        peaks.append(peak())
    print(json.dumps([peaks, totals]))
"""


@pytest.mark.long
@LINUX
def test_a_fit_to_ten_million_rows_needs_the_memory_of_one_to_a_hundred_thousand(tmp_path):
    """As a memory map of 320 MB, as 16 shards, and as the map with its columns reversed; with all that a fit does."""
    part = np.random.default_rng(0).normal(size=(125_000, 8)).astype(np.float32)
    np.save(tmp_path / "few.npy", part[:100_000])
    (tmp_path / "shards").mkdir()
    whole = np.lib.format.open_memmap(tmp_path / "many.npy", "w+", np.float32, (10_000_000, 8))
    for number, shard in enumerate(np.split(whole, 16)):
        shard.reshape(5, *part.shape)[:] = part
        np.save(tmp_path / "shards" / f"{number:02}.npy", shard)
    command = [sys.executable, "-c", textwrap.dedent(FITTED), str(tmp_path)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    peaks, totals = json.loads(done.stdout)
    assert totals[1:] == pytest.approx([80 * part.sum(dtype=np.float64)] * 3)
    assert max(peaks) - peaks[0] < 150, peaks  # megabytes, of 320


def large(tmp_path, *, changed=None, value=np.nan, rows=3_000_000):
    array = np.lib.format.open_memmap(tmp_path / "large.npy", "w+", np.float32, (rows, 6))
    array[0], array[-1] = 1.0, 2.0
    if changed is not None:
        array[changed] = value
    return tmp_path / "large.npy"


def test_of_large_files_a_sample_of_rows_is_checked(tmp_path):
    check_rows(open_rows(large(tmp_path)))
    with pytest.raises(ValueError, match=r"data: row 2999999 holds nan \(1 of a sample of 4096 rows are not finite\)"):
        check_rows(open_rows(large(tmp_path, changed=-1)))
    with pytest.raises(ValueError, match="row 0 holds a value of size 1e\\+30, whose square is too large"):
        check_rows(open_rows(large(tmp_path, changed=0, value=1e30)), dtype=torch.float32)


def test_nan_that_the_sample_misses_is_named_at_its_batch(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.samples._LARGEST", 100)
    monkeypatch.setattr("pyro_gflows.datasets.samples._ROWS", 4)
    rows = points(1000).numpy()
    rows[5::20] = np.nan
    np.save(tmp_path / "events.npy", rows)
    settings = FitSettings(steps=100, batch_size=4, check_symmetry=False)
    with pytest.raises(FitDiverged, match=r"the batch of step \d+ holds NaN or infinity"):
        fit(small_flow(), tmp_path / "events.npy", settings=settings, progress=False)


def test_the_fingerprint_of_large_files_is_of_their_size_and_a_sample(tmp_path):
    path = large(tmp_path)
    known = fingerprint(open_rows(path), dtype=torch.float32)
    assert known.startswith("(3000000, 6) torch.float32 ") and known.endswith(" of 4096 rows")
    assert fingerprint(as_rows(np.load(path, mmap_mode="r")), dtype=torch.float32) == known
    others = [large(tmp_path, rows=3_000_001), large(tmp_path, changed=-1, value=3.0)]
    assert len({known, *(fingerprint(open_rows(other), dtype=torch.float32) for other in others)}) == 2


def test_the_fingerprint_of_small_files_is_that_of_the_tensor(tmp_path):
    events = torch.randn(1000, 3)
    (tmp_path / "shards").mkdir()
    np.save(tmp_path / "events.npy", events.numpy())
    for number, part in enumerate(events.split(300)):
        np.save(tmp_path / "shards" / f"{number}.npy", part.numpy())
    known = fingerprint(events)
    assert fingerprint(open_rows(tmp_path / "events.npy")) == known == fingerprint(open_rows(tmp_path / "shards"))


def test_what_becomes_a_tensor_is_checked_in_full(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.samples._LARGEST", 10)
    monkeypatch.setattr("pyro_gflows.datasets.samples._ROWS", 4)
    events = np.ones((100, 2))
    events[50] = np.nan
    np.save(tmp_path / "events.npy", events)
    stored = np.load(tmp_path / "events.npy", mmap_mode="r")
    check_rows(as_rows(stored))
    for data in (events, stored):
        with pytest.raises(ValueError, match=r"row 50 holds nan \(1 of 100 rows are not finite\)"):
            check_data(data)
