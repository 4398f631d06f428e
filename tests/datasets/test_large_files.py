"""Files that are read a part at a time: which they are, and how their rows are split into three parts."""

import numpy as np
import pytest
import torch

from pyro_gflows.datasets import FileOptions, FileRows, event_format, large_files, load_data, open_rows
from pyro_gflows.datasets.large_files import is_path, opened_rows
from pyro_gflows.datasets.split_store import SplitStore


def counted(rows, start=0):
    """Rows that are told apart by their values."""
    return (start + np.arange(2.0 * rows)).reshape(rows, 2)


@pytest.fixture
def folder(tmp_path):
    """Three shards of different sizes, one of them tiny."""
    (tmp_path / "events").mkdir()
    start = 0
    for number, rows in enumerate((2600, 7, 1500)):
        np.save(tmp_path / "events" / f"{number}.npy", counted(rows, start))
        start += 2 * rows
    return tmp_path / "events"


def parts_of(rows, **options):
    some = rows.take(torch.arange(min(50, len(rows)))).numpy()
    form = event_format(some, FileOptions(**options), source="x")
    return [SplitStore(rows.store, part, form=form) for part in range(3)]


def all_of(part):
    return FileRows(part).take(torch.arange(sum(part.lengths)))


def test_every_row_is_in_one_part_and_every_part_is_from_everywhere(folder):
    rows = open_rows(folder)
    parts = parts_of(rows)
    found = [all_of(part) for part in parts]
    together = torch.cat(found)
    whole = torch.from_numpy(counted(4107))
    assert torch.equal(together[together[:, 0].sort().indices], whole)
    sizes = [len(part) for part in found]
    assert sizes == pytest.approx([0.8 * 4107, 0.1 * 4107, 0.1 * 4107], abs=5)
    for part in found:  # from both halves of the large file
        assert bool((part[:, 0] < 2500).any()) and bool(((part[:, 0] > 2700) & (part[:, 0] < 5000)).any())
    for part, events in zip(parts, found, strict=True):
        some = torch.randperm(len(events), generator=torch.Generator().manual_seed(0))[:40]
        assert torch.equal(rows.take(part.numbers(some)), events[some])
        assert torch.equal(torch.cat(list(FileRows(part).blocks(97))), events)


def test_the_parts_of_a_table_and_of_a_chunked_array(tmp_path):
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    zarr = pytest.importorskip("zarr")
    x = counted(1000)
    parquet.write_table(pyarrow.table({"a": x[:, 0], "b": x[:, 1]}), tmp_path / "x.parquet", row_group_size=300)
    stored = zarr.create_array(str(tmp_path / "x.zarr"), shape=x.shape, chunks=(170, 2), dtype=x.dtype)
    stored[:] = x
    for name in ("x.parquet", "x.zarr"):
        found = [all_of(part) for part in parts_of(open_rows(tmp_path / name))]
        together = torch.cat(found)
        assert torch.equal(together[together[:, 0].sort().indices], torch.from_numpy(x))
        data = load_data(str(tmp_path / name), file=FileOptions("C2"))
        assert isinstance(data.train, FileRows) and data.event_shape == (2,)
        assert data.test.dtype == torch.float32


@pytest.mark.parametrize(
    ("shape", "group", "values"),
    [((8, 8), "C4", 17), ((3, 6, 6), "C4", 256), ((6, 6, 3), "C4", 256), ((5, 3), "S5", None), ((4, 4, 1), "C4", None)],
    ids=str,
)
def test_events_are_those_of_a_file_that_is_read_at_once(shape, group, values, tmp_path, monkeypatch):
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, values, (200, *shape), np.uint8) if values else generator.normal(size=(200, *shape))
    np.save(tmp_path / "x.npy", drawn)
    small = load_data(str(tmp_path / "x.npy"), file=FileOptions(group))
    monkeypatch.setattr(large_files, "LARGE", 1000)
    large = load_data(str(tmp_path / "x.npy"), file=FileOptions(group))
    assert isinstance(large.train, FileRows) and large.format == small.format
    assert (large.event_shape, large.scaling, large.augment is None) == (
        small.event_shape,
        small.scaling,
        small.augment is None,
    )
    rows = np.r_[0:160]  # one stretch
    assert len(large.train) == 160 and len(large.validation) == len(large.test) == 20
    train = large.train.take(torch.from_numpy(rows)).float()
    form = small.format
    for events, array in ((train, drawn[:160]), (large.validation, drawn[160:180]), (large.test, drawn[180:])):
        if form.gray is None:
            torch.testing.assert_close(events, form.to_events(array, source="x"))
        else:  # up to the noise inside a level
            assert np.array_equal(form.to_array(events), array)
    if form.gray is not None:  # the noise is the same at every reading
        assert torch.equal(large.train.take(torch.arange(5)), large.train.take(torch.arange(5)))


def test_which_names_are_opened(folder, tmp_path, monkeypatch):
    np.save(tmp_path / "x.npy", counted(30))
    assert [is_path(name) for name in ("x.npy", "x.parquet", "x.zarr", str(folder), "rings", "none")] == [
        *[True] * 4,
        *[False] * 2,
    ]
    assert opened_rows(str(tmp_path / "x.npy")) is None and opened_rows("rings") is None
    assert len(opened_rows(str(folder))) == 4107
    monkeypatch.setattr(large_files, "LARGE", 50)
    assert len(opened_rows(str(tmp_path / "x.npy"))) == 30
    (tmp_path / "bad.npy").write_bytes(b"nothing")
    with pytest.raises(ValueError, match=r"cannot read .*bad\.npy"):
        load_data(str(tmp_path / "bad.npy"), file=FileOptions("C2"))


def test_a_file_that_is_too_small_to_split_and_counts_are_refused(tmp_path):
    for name, array in (("few", counted(4)), ("counts", counted(70).astype(np.int64))):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "x.npy", array)
    with pytest.raises(ValueError, match="at least 10 rows in a file"):
        load_data(str(tmp_path / "few"), file=FileOptions("C2"))
    with pytest.raises(TypeError, match="expected floating-point values, got int64"):
        load_data(str(tmp_path / "counts"), file=FileOptions("C2"))


def test_values_that_repeat_are_warned_of(tmp_path):
    (tmp_path / "x").mkdir()
    np.save(tmp_path / "x" / "x.npy", np.random.default_rng(0).integers(0, 5, (900, 2)) / 4)
    with pytest.warns(UserWarning, match="the same few values come again"):
        load_data(str(tmp_path / "x"), file=FileOptions("C2"))
