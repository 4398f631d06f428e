import numpy as np
import pytest
import torch

from pyro_gflows.datasets import check_data, load_array


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
    with pytest.raises(TypeError, match=r"got int64.*dequantize"):
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


@pytest.mark.parametrize(
    "text",
    [
        "\ufeff0.5,1.5\n2.5,3.5\n",  # a byte order mark, as Excel writes it
        "\ufeffx,y\n0.5,1.5\n2.5,3.5\n",
        ",x,y\n0,0.5,1.5\n1,2.5,3.5\n",  # pandas with its column of row names
        ",x,y\na,0.5,1.5\nb,2.5,3.5\n",
        "Unnamed: 0,x,y\n7,0.5,1.5\n3,2.5,3.5\n",  # ... read and written again
        ",0,1\n0,0.5,1.5\n1,2.5,3.5\n",  # pandas without names of columns
        "0,1\n0.5,1.5\n2.5,3.5\n",
        '"","x","y"\n"1",0.5,1.5\n"2",2.5,3.5\n',  # R
        "x,y\nfirst,0.5,1.5\nsecond,2.5,3.5\n",
        "# x,y\r\n0.5,1.5\r\n\r\n2.5,3.5\r\n",
        "0.5, 1.5\n2.5, 3.5",
    ],
)
def test_tables_as_other_programs_write_them(tmp_path, text):
    (tmp_path / "x.csv").write_bytes(text.encode("utf-8"))
    assert load_array(tmp_path / "x.csv").tolist() == [[0.5, 1.5], [2.5, 3.5]]


def test_a_row_of_integers_is_no_header_among_integers(tmp_path):
    (tmp_path / "x.csv").write_text("0,1\n5,2\n")
    assert load_array(tmp_path / "x.csv").tolist() == [[0, 1], [5, 2]]


def test_a_column_that_may_number_the_rows_is_warned_of(tmp_path):
    (tmp_path / "x.csv").write_text("id,x\n1,0.5\n2,2.5\n3,0.25\n")
    with pytest.warns(UserWarning, match="first column 'id' counts the rows"):
        assert load_array(tmp_path / "x.csv").shape == (3, 2)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x;y\n0.5;1.5\n", "line 2.*separated by commas.*semicolons"),
        ("0,5;1,5\n0,5;2,5\n", "line 1.*'5;1'"),
        ("x y\n0.5 1.5\n", "line 2.*spaces"),
        ("x\ty\n0.5\t1.5\n", "line 2.*tabs"),
        ("x,y\n0.5,\n", "line 2.*an empty cell"),
        ("x,y\n", "is empty"),
    ],
)
def test_tables_that_cannot_be_read_say_why(tmp_path, text, message):
    (tmp_path / "x.csv").write_text(text)
    with pytest.raises(ValueError, match=message):
        load_array(tmp_path / "x.csv")


def test_text_of_another_encoding_is_named(tmp_path):
    (tmp_path / "x.csv").write_bytes("x,y\n0.5,1.5\n".encode("utf-16"))
    with pytest.raises(ValueError, match="UTF-8"):
        load_array(tmp_path / "x.csv")


def test_endings_in_capitals_and_values_that_overflow(tmp_path):
    np.save(tmp_path / "x.npy", np.full((3, 2), 1e39))
    (tmp_path / "x.npy").rename(tmp_path / "X.NPY")
    with pytest.raises(ValueError, match="row 0 holds 1e\\+39, more than float32 can hold"):
        load_array(tmp_path / "X.NPY")
    assert load_array(tmp_path / "X.NPY", dtype=torch.float64).shape == (3, 2)
