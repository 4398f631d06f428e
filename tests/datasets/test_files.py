import numpy as np
import pytest
import torch

from pyro_gflows.datasets import load_array
from pyro_gflows.infer import check_data


def write(path, array):
    if path.suffix == ".csv":
        np.savetxt(path, array, delimiter=",", header="x,y", comments="")
    elif path.suffix == ".npz":
        np.savez(path, data=array)
    else:
        np.save(path, array)
    return path


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv"])
def test_every_format_gives_the_same_rows(tmp_path, ending):
    array = np.random.default_rng(0).normal(size=(5, 2))
    x = load_array(write(tmp_path / f"x{ending}", array), event_shape=(2,), dtype=torch.float64)
    assert torch.equal(x, torch.from_numpy(array))


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_the_row_that_is_not_finite_is_named(tmp_path, ending, value):
    array = np.zeros((5, 2))
    array[3, 1] = value
    with pytest.raises(ValueError, match=rf"row 3 holds {value}"):
        load_array(write(tmp_path / f"x{ending}", array))


def test_integers_are_refused_with_what_to_do(tmp_path):
    with pytest.raises(TypeError, match=r"got int64.*dequantise"):
        load_array(write(tmp_path / "x.npy", np.zeros((5, 2), dtype=np.int64)))


def test_pickled_objects_are_never_loaded(tmp_path):
    np.save(tmp_path / "x.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ValueError, match="cannot read"):
        load_array(tmp_path / "x.npy")


@pytest.mark.parametrize("ending", [".npy", ".npz", ".csv"])
def test_empty_files_are_refused(tmp_path, ending):
    (tmp_path / f"zero{ending}").touch()
    with pytest.raises(ValueError, match="is empty"):
        load_array(tmp_path / f"zero{ending}")
    with pytest.raises(ValueError, match="is empty"):
        load_array(write(tmp_path / f"rows{ending}", np.zeros((0, 2))))


@pytest.mark.parametrize("ending", [".npy", ".npz"])
def test_truncated_files_are_refused(tmp_path, ending):
    path = write(tmp_path / f"x{ending}", np.zeros((50, 2)))
    path.write_bytes(path.read_bytes()[:300])
    with pytest.raises(ValueError, match="cannot read"):
        load_array(path)


def test_a_wrong_event_shape_names_both(tmp_path):
    with pytest.raises(ValueError, match=r"expected event shape \(2,\), received \(3,\)"):
        load_array(write(tmp_path / "x.npy", np.zeros((5, 3))), event_shape=(2,))
    with pytest.raises(ValueError, match="expected rows of events"):
        check_data(torch.zeros(4))


def test_an_archive_of_several_arrays_needs_a_key(tmp_path):
    np.savez(tmp_path / "x.npz", a=np.zeros((3, 2)), b=np.ones((3, 2)))
    with pytest.raises(ValueError, match=r"\['a', 'b'\].*key"):
        load_array(tmp_path / "x.npz")
    with pytest.raises(ValueError, match="not 'c'"):
        load_array(tmp_path / "x.npz", key="c")
    assert float(load_array(tmp_path / "x.npz", key="b").sum()) == 6


@pytest.mark.parametrize(("text", "message"), [("1,2\n3\n", "line 2: expected 2"), ("1,2\n3,x\n", "line 2.*'x'")])
def test_a_bad_csv_line_is_named(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_array(tmp_path / "x.csv")


@pytest.mark.parametrize("name", ["x.txt", "missing.npy"])
def test_unknown_and_missing_files_are_refused(tmp_path, name):
    (tmp_path / "x.txt").write_text("1")
    with pytest.raises(ValueError, match=r"expected \.npy|no such data file"):
        load_array(tmp_path / name)
