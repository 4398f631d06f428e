"""Parquet, Arrow and Zarr files, whose parts are decoded as a whole: each once an epoch, and few at a time."""

import pickle
import sys

import numpy as np
import pytest
import torch

from pyro_gflows.datasets import Share, open_rows
from pyro_gflows.datasets.checks import check_rows
from pyro_gflows.training import FitSettings, fit
from pyro_gflows.training.batches import batches_of
from pyro_gflows.training.identity import fingerprint
from tests.small_flows import points, small_flow

pa = pytest.importorskip("pyarrow", reason="the extra files")
feather = pytest.importorskip("pyarrow.feather")
parquet = pytest.importorskip("pyarrow.parquet")

EVENTS = np.random.default_rng(0).normal(size=(1000, 3)).astype(np.float32)


def table(events=EVENTS):
    return pa.table({name: events[:, column] for column, name in enumerate("abcdefgh"[: events.shape[1]])})


def lists(events=EVENTS, *sizes):
    flat = pa.array(events.reshape(-1))
    for size in sizes or events.shape[:0:-1]:
        flat = pa.FixedSizeListArray.from_arrays(flat, size)
    return pa.table({"events": flat})


def as_parquet(folder, content=None, name="events.parquet"):
    folder.mkdir(exist_ok=True)
    parquet.write_table(content or table(), folder / name, row_group_size=64)
    return folder / name


def as_feather(folder, content=None):
    folder.mkdir()
    feather.write_feather(content or table(), folder / "events.feather", chunksize=64)
    return folder / "events.feather"


def folder_of_tables(folder, ending="parquet"):
    for number, part in enumerate(np.split(EVENTS, [100, 101, 500])):
        as_parquet(folder, table(part), f"{number}.{ending}")
    return folder


def as_zarr(folder, events=EVENTS):
    zarr = pytest.importorskip("zarr", reason="zarr needs Python 3.11")
    chunks = (64, *(1 for _ in events.shape[1:]))
    zarr.create_array(folder, shape=events.shape, chunks=chunks, dtype=events.dtype)[:] = events
    return folder


FORMS = {
    "parquet": as_parquet,
    "lists in parquet": lambda folder: as_parquet(folder, lists()),
    "folder of parquet": folder_of_tables,
    "arrow": as_feather,
    "lists in arrow": lambda folder: as_feather(folder, lists()),
    "zarr": as_zarr,
}


@pytest.fixture(params=FORMS)
def rows(request, tmp_path):
    return open_rows(FORMS[request.param](tmp_path / "data"))


def test_rows_and_blocks_are_those_of_the_array(rows):
    assert len(rows) == 1000 and rows.event_shape == (3,) and rows.dtype == torch.float32
    index = torch.randint(1000, (100,))
    assert np.array_equal(rows.take(index).numpy(), EVENTS[index.numpy()])
    for size in (7, 64, 5000):
        assert np.array_equal(torch.cat(list(rows.blocks(size))).numpy(), EVENTS)


def test_another_process_gets_the_path_and_not_the_contents(rows):
    rows.take(torch.tensor([0]))
    sent = pickle.dumps(rows)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).take(torch.tensor([999, 1])).numpy(), EVENTS[[999, 1]])


def reads_of(rows, monkeypatch):
    reads = []
    read = rows.store.read
    monkeypatch.setattr(rows.store, "read", lambda part: (reads.append(part), read(part))[1])
    return reads


def test_an_epoch_sees_all_rows_and_decodes_every_part_once(rows, monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.file_rows._WINDOW", (3, 1))
    reads = reads_of(rows, monkeypatch)
    batches = batches_of(rows, 10, 0)
    seen = torch.cat([batches.next() for _ in range(100)])
    assert sorted(map(tuple, seen.tolist())) == sorted(map(tuple, EVENTS.tolist()))
    assert sorted(reads) == list(range(len(rows.store.lengths)))
    assert not np.array_equal(seen.numpy(), EVENTS)
    first = [batches.next() for _ in range(30)]
    assert not torch.equal(torch.cat(first), seen[:300])


def test_processes_share_the_batches_and_resume_within_an_epoch(rows, monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.file_rows._WINDOW", (3, 1))

    def streams(size):
        return [batches_of(rows, 16, 0, share=Share(rank, size)) for rank in range(size)]

    one = streams(1)[0]
    unbroken = [one.next() for _ in range(70)]
    old = streams(2)
    assert torch.equal(
        torch.cat([torch.cat([stream.next() for stream in old]) for _ in range(40)]), torch.cat(unbroken[:40])
    )
    new = streams(3)
    for stream in new:
        stream.restore(old[1].state())
    assert torch.equal(
        torch.cat([torch.cat([stream.next() for stream in new]) for _ in range(30)]), torch.cat(unbroken[40:])
    )


def test_of_large_files_a_few_parts_are_checked(rows, monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.samples._LARGEST", 100)
    monkeypatch.setattr("pyro_gflows.datasets.samples._PARTS", 3)
    reads = reads_of(rows, monkeypatch)
    check_rows(rows)
    assert 2 <= len(set(reads)) <= 3 and max(reads) == len(rows.store.lengths) - 1
    assert fingerprint(rows).startswith("(1000, 3) torch.float32 ")


def test_a_flow_is_fitted_to_a_table(tmp_path):
    path = as_parquet(tmp_path / "data", table(points(300).numpy()))
    result = fit(small_flow(), path, validation=path, settings=FitSettings(steps=8, batch_size=50), progress=False)
    assert result.validation_nll < 20


def test_columns_keys_and_events_of_several_axes(tmp_path):
    path = as_parquet(tmp_path / "data")
    assert np.array_equal(open_rows(path, columns=["c", "a"]).take(torch.tensor([5])).numpy(), EVENTS[[5]][:, [2, 0]])
    images = np.arange(48.0).reshape(4, 3, 2, 2)
    assert np.array_equal(open_rows(as_feather(tmp_path / "b", lists(images))).take(torch.arange(4)).numpy(), images)
    mixed = pa.table({"a": pa.array([1, 2], pa.int32()), "b": pa.array([0.5, 2.0], pa.float32())})
    rows = open_rows(as_parquet(tmp_path / "data", mixed, "mixed.parquet"))
    assert rows.dtype == torch.float64 and rows.take(torch.tensor([0])).tolist() == [[1.0, 0.5]]


def test_an_array_in_a_zarr_group_has_a_key(tmp_path):
    zarr = pytest.importorskip("zarr", reason="zarr needs Python 3.11")
    group = zarr.open_group(tmp_path / "group", mode="w")
    group.create_array("train", data=EVENTS, chunks=(50, 3), shards=(100, 3))
    rows = open_rows(tmp_path / "group", key="train")
    assert len(rows.store.lengths) == 10 and np.array_equal(rows.take(torch.tensor([999])).numpy(), EVENTS[[999]])
    for key in (None, "test"):
        with pytest.raises(ValueError, match=r"group is a group of the arrays \['train'\]: name one, .* got"):
            open_rows(tmp_path / "group", key=key)
    (tmp_path / "broken.zarr").mkdir()
    with pytest.raises(ValueError, match="cannot read .*broken.zarr"):
        open_rows(tmp_path / "broken.zarr")
    with pytest.raises(TypeError, match="expected real floating-point values, got complex64"):
        open_rows(as_zarr(tmp_path / "complex", EVENTS.astype(np.complex64)))
    with pytest.raises(ValueError, match=r"expected rows of events, got an array of shape \(1000,\)"):
        open_rows(as_zarr(tmp_path / "flat", EVENTS[:, 0]))
    with pytest.raises(ValueError, match="holds one array without a name, received key='x'"):
        open_rows(as_zarr(tmp_path / "one"), key="x")


def test_a_missing_value_of_a_float_is_nan_which_the_checks_name(tmp_path):
    path = as_parquet(tmp_path / "data", pa.table({"a": [1.0, None], "b": [1.0, 2.0]}))
    with pytest.raises(ValueError, match="data: row 1 holds nan"):
        check_rows(open_rows(path))


def damaged(folder):
    (folder_of_tables(folder) / "1.parquet").write_bytes(b"PAR1")
    return folder


def other_columns(folder):
    as_parquet(folder_of_tables(folder), pa.table({"a": [1.0], "b": [1.0], "d": [1.0]}), "3.parquet")
    return folder


def two_kinds(folder):
    np.save(folder_of_tables(folder) / "x.npy", EVENTS)
    return folder


@pytest.mark.parametrize(
    ("make", "options", "error", "message"),
    [
        (damaged, {}, ValueError, "cannot read .*1.parquet"),
        (
            other_columns,
            {},
            ValueError,
            "3.parquet has the columns a: double, b: double, d: double, but 0.parquet has a: fl",
        ),
        (two_kinds, {}, ValueError, "expected files of one kind in .*data, got 0.parquet and x.npy"),
        (as_parquet, {"columns": ["z"]}, ValueError, "events.parquet has no column 'z'; its columns are a, b, c"),
        (as_parquet, {"columns": []}, ValueError, "expected columns of .*events.parquet, got none"),
        (as_parquet, {"key": "a"}, ValueError, "only Zarr groups have keys, received key='a'"),
        (as_zarr, {"columns": ["a"]}, ValueError, "is a Zarr array, which has no columns"),
    ],
)
def test_what_cannot_be_opened_is_named(make, options, error, message, tmp_path):
    with pytest.raises(error, match=message):
        open_rows(make(tmp_path / "data"), **options)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"a": [1.0], "name": ["x"]}, r"but 'name' holds string; name the columns to read: open_rows\(path, columns"),
        (
            {"a": [1.0], "b": pa.array([[1.0, 2.0]], pa.list_(pa.float64(), 2))},
            "'b' holds lists beside 1 other columns",
        ),
    ],
)
def test_columns_that_make_no_event_are_named(content, message, tmp_path):
    with pytest.raises(TypeError, match=message):
        open_rows(as_parquet(tmp_path / "data", pa.table(content)))


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, None]), "has 1 missing values"),
        (pa.array([[1.0, 2.0], None], pa.list_(pa.float64(), 2)), "has 1 rows without a list"),
    ],
)
def test_missing_values_that_nan_cannot_stand_for_are_named(column, message, tmp_path):
    rows = open_rows(as_parquet(tmp_path / "data", pa.table({"a": column})))
    with pytest.raises(ValueError, match=message):
        rows.take(torch.tensor([0]))


@pytest.mark.parametrize(("make", "missing"), [(as_parquet, "pyarrow"), (as_feather, "pyarrow"), (as_zarr, "zarr")])
def test_a_missing_library_is_named_with_what_to_install(make, missing, tmp_path, monkeypatch):
    path = make(tmp_path / "data")
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf"{missing} reads .*: pip install 'pyro-gflows\[files\]'"):
        open_rows(path)
