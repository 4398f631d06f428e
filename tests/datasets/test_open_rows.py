"""Files of events are opened without being read, a few rows at a time, and by any process."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from pyro_gflows.datasets import Share, open_rows
from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.evaluation import nll
from pyro_gflows.training import FitSettings, fit
from tests.small_flows import points, small_flow

LENGTHS = (700, 1, 0, 299, 24)
EVENTS = np.random.default_rng(0).normal(size=(sum(LENGTHS), 3, 2)).astype(np.float32)


def one_file(folder, events=EVENTS, name="events.npy"):
    folder.mkdir(exist_ok=True)
    np.save(folder / name, events)
    return folder / name


def shards(folder, events=EVENTS):
    folder.mkdir(exist_ok=True)
    for number, part in enumerate(np.split(events, np.cumsum(LENGTHS)[:-1])):
        np.save(folder / f"part-{number}.npy", part)
    (folder / "_SUCCESS").touch()
    return folder


def fortran(folder):
    return one_file(folder, np.asfortranarray(EVENTS))


def other_byte_order(folder):
    return one_file(folder, EVENTS.astype(">f4"))


FORMS = {"file": one_file, "shards": shards, "columns first": fortran, "the other byte order": other_byte_order}


@pytest.fixture(params=["small", "large", "large, without preadv"])
def size(request, monkeypatch):
    """How arrays are read: through the mapping, or as large ones are, from the file or with pages that are released."""
    if request.param != "small":
        monkeypatch.setattr("pyro_gflows.datasets.array_rows.KEPT_BYTES", 0)
        monkeypatch.setattr("pyro_gflows.datasets.file_rows.KEPT_BYTES", 0)
    if "without" in request.param:
        monkeypatch.delattr("os.preadv")  # as on Windows


@pytest.fixture(params=FORMS)
def rows(request, tmp_path, size):
    return open_rows(FORMS[request.param](tmp_path / "data"))


def test_rows_are_those_of_the_array(rows):
    assert len(rows) == len(EVENTS) and rows.event_shape == (3, 2) and rows.dtype == torch.float32
    index = torch.randint(len(EVENTS), (100,))
    taken = rows.take(index)
    assert taken.dtype == torch.float32 and np.array_equal(taken.numpy(), EVENTS[index.numpy()])
    assert torch.equal(rows[5], torch.from_numpy(EVENTS[5]))
    with pytest.raises(IndexError, match=r"expected rows from 0 to 1023 .* got 3 to 1024"):
        rows.take(torch.tensor([3, 1024]))


@pytest.mark.parametrize("count", [1, 7, 300, 5000])
def test_blocks_are_of_one_size_whatever_the_files_are(rows, count):
    blocks = list(rows.blocks(count))
    assert [len(block) for block in blocks[:-1]] == [count] * (len(blocks) - 1)
    assert np.array_equal(torch.cat(blocks).numpy(), EVENTS)


@pytest.mark.parametrize("form", ["file", "shards", "array", "tensor", "data set"])
def test_the_blocks_of_all_processes_together_are_all_rows_once(form, tmp_path):
    events = torch.from_numpy(EVENTS)
    others = {"array": EVENTS, "tensor": events, "data set": torch.utils.data.Subset(events, range(len(events)))}
    rows = as_rows(others[form] if form in others else FORMS[form](tmp_path / "data"))
    of_each = [list(rows.blocks(100, Share(rank, 3))) for rank in range(3)]
    assert [len(blocks) for blocks in of_each] == [4, 4, 3]
    in_order = [of_each[number % 3][number // 3] for number in range(11)]
    assert np.array_equal(torch.cat(in_order).numpy(), EVENTS)


def test_another_process_gets_the_path_and_not_the_contents(rows):
    list(rows.blocks(100))
    sent = pickle.dumps(rows)
    assert len(sent) < 2000
    again = pickle.loads(sent)
    assert torch.equal(again.take(torch.tensor([800, 3])), rows.take(torch.tensor([800, 3])))
    assert repr(again) == repr(rows)


PARTS = {"all": np.s_[:], "some rows": np.s_[10:50], "reversed": np.s_[::-2, 1:], "every third": np.s_[1::3, :, :1]}


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("form", ["file", "columns first", "the other byte order"])
def test_rows_of_a_memory_map_of_the_user_are_those_of_the_array(form, part, tmp_path, size):
    rows, expected = as_rows(np.load(FORMS[form](tmp_path), mmap_mode="r")[part]), EVENTS[part]
    for index in (torch.tensor([3, 0, len(expected) - 1, 3]), torch.arange(2, 9), torch.tensor([], dtype=torch.long)):
        assert np.array_equal(rows.take(index).numpy(), expected[index.numpy()])
        assert np.array_equal(torch.cat(list(rows.blocks(9))).numpy(), expected)


def test_a_memory_map_stays_right_where_its_file_has_lost_its_name(tmp_path, size):
    array = np.load(one_file(tmp_path), mmap_mode="r")
    (tmp_path / "events.npy").unlink()
    without_name = as_rows(array)
    one_file(tmp_path, 1 + EVENTS)
    with_the_name_of_another = as_rows(array)
    one_file(tmp_path / "shorter", EVENTS[:10]).replace(tmp_path / "events.npy")
    for rows in (without_name, with_the_name_of_another, as_rows(array)):
        assert np.array_equal(rows.take(torch.tensor([3])).numpy(), EVENTS[[3]])


def test_a_large_file_that_was_cut_short_is_named(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.file_rows.KEPT_BYTES", 0)
    rows = open_rows(one_file(tmp_path))
    rows.take(torch.tensor([0]))
    with (tmp_path / "events.npy").open("r+b") as file:
        file.truncate(1000)
    for read in (lambda: rows.take(torch.tensor([1000])), lambda: list(rows.blocks(100))):
        with pytest.raises(ValueError, match="events.npy has become shorter than it was when it was opened"):
            read()


@pytest.mark.parametrize("part", PARTS.values(), ids=PARTS)
def test_another_process_gets_the_place_of_a_memory_map_of_the_user(part, tmp_path):
    array = np.load(one_file(tmp_path), mmap_mode="r")[part]
    rows = as_rows(array)
    sent = pickle.dumps(rows)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent).data, EVENTS[part])


def test_rows_can_be_read_from_another_working_directory(tmp_path, monkeypatch):
    one_file(tmp_path)
    monkeypatch.chdir(tmp_path)
    rows = open_rows("events.npy")
    monkeypatch.chdir("/")
    assert np.array_equal(rows.take(torch.tensor([7])).numpy(), EVENTS[[7]])


def test_a_loader_reads_rows_as_a_dataset(rows):
    batches = list(DataLoader(rows, batch_size=100))
    assert np.array_equal(torch.cat(batches).numpy(), EVENTS)


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="open files are counted in /proc")
def test_few_files_are_open_at_a_time(tmp_path, monkeypatch):
    for name in ("pyro_gflows.datasets.array_rows.KEPT_BYTES", "pyro_gflows.datasets.file_rows.KEPT_BYTES"):
        monkeypatch.setattr(name, 0)
    monkeypatch.setattr("pyro_gflows.datasets.file_rows._MAPPED_FILES", 3)
    before = len(list(Path("/proc/self/fd").iterdir()))
    rows = open_rows(shards(tmp_path / "data"))
    for _ in range(3):
        assert np.array_equal(torch.cat(list(rows.blocks(100))).numpy(), EVENTS)
        rows.take(torch.arange(0, 1024, 50))
        assert len(list(Path("/proc/self/fd").iterdir())) <= before + 3
    del rows
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_the_repr_says_what_was_opened(tmp_path):
    rows = open_rows(shards(tmp_path / "data"))
    path = str(tmp_path / "data")
    assert repr(rows) == f"FileRows({path!r}: .npy, 1024 rows of float32 events of shape (3, 2) in 5 parts)"


def test_changes_of_the_user_to_a_private_memory_map_stay(tmp_path, monkeypatch):
    monkeypatch.setattr("pyro_gflows.datasets.array_rows.KEPT_BYTES", 0)
    for mode, change in (("c", 5.0), ("r+", 6.0)):
        array = np.load(one_file(tmp_path), mmap_mode=mode)
        array[3] = change
        rows = as_rows(array[1:])
        assert rows.take(torch.tensor([2])).unique().tolist() == [change]
        assert rows.take(torch.tensor([2])).unique().tolist() == [change]


@pytest.mark.parametrize("form", ["rows", "path", "text"])
def test_files_are_fitted_and_scored_like_their_array(form, tmp_path):
    path = one_file(tmp_path, points(300).numpy())
    data = {"rows": open_rows, "path": lambda path: path, "text": str}[form](path)
    settings = FitSettings(steps=4, batch_size=50)
    flows = [small_flow(), small_flow()]
    losses = [
        fit(flow, x, validation=x, settings=settings, progress=False)
        for flow, x in zip(flows, (points(300), data), strict=True)
    ]
    assert losses[0].validation_nll == losses[1].validation_nll
    assert nll(flows[1], data) == nll(flows[0], points(300))


def wrong_shape(folder):
    np.save(shards(folder) / "part-3.npy", np.zeros((4, 5), np.float32))


def wrong_dtype(folder):
    np.save(shards(folder) / "part-3.npy", EVENTS.astype(np.float64))


def objects(folder):
    np.save(shards(folder) / "part-3.npy", np.array([["a", 1]], dtype=object), allow_pickle=True)


def cut(folder):
    data = (shards(folder) / "part-3.npy").read_bytes()
    (folder / "part-3.npy").write_bytes(data[:-1])


def another_kind(folder):
    (shards(folder) / "readme.txt").touch()


def empty_folder(folder):
    folder.mkdir()


def nothing(folder):
    pass


def no_rows_at_all(folder):
    one_file(folder, EVENTS[:0])


def one_axis(folder):
    one_file(folder, EVENTS[:, 0, 0])


def words(folder):
    one_file(folder, np.array([["a", "b"]]))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (wrong_shape, ValueError, r"part-3.npy holds float32 events of shape \(5,\), but part-0.npy"),
        (wrong_dtype, ValueError, r"part-3.npy holds float64 events of shape \(3, 2\), but part-0.npy holds float32"),
        (objects, ValueError, "cannot read .*part-3.npy"),
        (cut, ValueError, "cannot read .*part-3.npy"),
        (another_kind, ValueError, r"readme.txt ends in '.txt': expected .npy"),
        (empty_folder, ValueError, "data is empty: expected files of events"),
        (nothing, ValueError, "no such file or folder of data: .*data"),
        (no_rows_at_all, ValueError, "data is empty: expected rows of events"),
        (one_axis, ValueError, r"expected rows of events, got an array of shape \(1024,\)"),
        (words, TypeError, "expected real floating-point values, got <U1"),
    ],
)
def test_what_cannot_be_opened_is_named(make, error, message, tmp_path):
    make(tmp_path / "data")
    with pytest.raises(error, match=message):
        open_rows(tmp_path / "data")


def test_a_file_that_changes_after_it_was_opened_is_named(tmp_path):
    rows = open_rows(one_file(tmp_path))
    one_file(tmp_path, EVENTS[:10])
    with pytest.raises(ValueError, match=r"events.npy has changed .* got float32 of shape \(10, 3, 2\)"):
        rows.take(torch.tensor([0]))


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        (np.zeros((9, 2), np.int64), TypeError, "data: expected floating-point data, got int64"),
        (np.zeros((9, 3)), ValueError, r"data: expected event shape \(2,\), received \(3,\)"),
        (np.full((9, 2), np.nan), ValueError, "data: row 0 holds nan"),
    ],
)
def test_files_that_do_not_suit_the_flow_are_named_before_training(array, error, message, tmp_path):
    with pytest.raises(error, match=message):
        fit(small_flow(), one_file(tmp_path, array), progress=False)
