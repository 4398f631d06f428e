"""The command line with files of the user's own, of every kind."""

import json
import re

import numpy as np
import pytest

import pyro_gflows
from pyro_gflows.cli import main

RANDOM = np.random.default_rng(0)
SMALL = ["--steps", "2", "--batch-size", "8", "--quiet"]


def gray(*shape, levels=256, dtype=np.uint8):
    return RANDOM.integers(0, levels, shape).astype(dtype)


def fit(array, folder, *more):
    np.save(folder / "own.npy", array)
    return main(["fit", str(folder / "own.npy"), "--out", str(folder / "out"), *SMALL, *more])


def draws(folder, n=4):
    assert main(["sample", str(folder / "out"), "-n", str(n), "--out", str(folder / "draws.npy")]) == 0
    return np.load(folder / "draws.npy")


def error_of(capsys):
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "Traceback" not in error, error
    return error


@pytest.mark.long
@pytest.mark.parametrize(
    ("array", "options", "said"),
    [
        (RANDOM.normal(size=(60, 4)).astype(np.float32), ["--group", "C4"], "vectors of 4 coordinates"),
        (RANDOM.normal(size=(60, 2)).astype(np.float16), ["--group", "D3"], "vectors of 2 coordinates"),
        (RANDOM.normal(size=(60, 2)).astype(">f8"), ["--group", "C1"], "vectors of 2 coordinates"),
        (RANDOM.normal(size=(60, 3, 2)), ["--group", "O(2)", "--flow", "radial"], "(each 3 x 2)"),
        (RANDOM.normal(size=(60, 2, 3)), ["--group", "SO(3)", "--flow", "radial"], "(each 2 x 3)"),
        (RANDOM.normal(size=(60, 3, 2)), ["--group", "S3"], "sets of 3 rows with 2 features"),
        (RANDOM.normal(size=(60, 3, 1)), ["--group", "s3"], "sets of 3 rows with 1 feature"),
        (RANDOM.normal(size=(60, 6)), ["--group", "S3"], "vectors of 6 coordinates"),
        (RANDOM.normal(size=(60, 3, 4)), ["--group", "C1", "--events", "sets"], "sets of 3 rows with 4 features"),
        (gray(60, 4, 4), ["--group", "C4"], "4 x 4 pixels with 1 channel of 256 gray levels"),
        (gray(60, 4, 4, levels=2, dtype=bool), ["--group", "D4"], "of 2 gray levels"),
        (gray(60, 1, 4, 4), ["--group", "D2"], "4 x 4 pixels with 1 channel"),
        (gray(60, 4, 4, 3), ["--group", "C2"], "4 x 4 pixels with 3 channels"),
        (gray(60, 3, 4, 4), ["--group", "C1"], "4 x 4 pixels with 3 channels"),
        (gray(60, 6, 4, 3), ["--group", "D1"], "6 x 4 pixels with 3 channels"),
        (gray(60, 5, 5, dtype=np.int64), ["--group", "C4"], "5 x 5 pixels"),
        (gray(60, 4, 4).astype(np.float32) / 255, ["--group", "C4"], "256 gray levels"),
        (gray(60, 4, 4).astype(np.float32) / 127.5 - 1, ["--group", "C4"], "256 gray levels"),
        (gray(60, 4, 4, levels=17) / 16.0, ["--group", "C4"], "17 gray levels"),
        (gray(60, 4, 4), ["--group", "translations"], "256 gray levels"),
        (RANDOM.normal(size=(60, 4, 4)), ["--group", "C4"], "continuous values"),
        (RANDOM.normal(size=(60, 4, 4, 2)), ["--group", "D4", "--flow", "image-residual"], "with 2 channels"),
    ],
    ids=lambda value: f"{value.dtype}{value.shape[1:]}" if isinstance(value, np.ndarray) else None,
)
def test_every_kind_of_file_is_fitted_sampled_and_scored_in_its_own_form(array, options, said, tmp_path, capsys):
    assert fit(array, tmp_path, *options) == 0
    assert said in capsys.readouterr().out
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["invariance_error"] < 1e-10
    drawn = draws(tmp_path)
    assert drawn.shape == (4, *array.shape[1:]) and drawn.dtype.newbyteorder("=") == array.dtype.newbyteorder("=")
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "own.npy")]) == 0
    assert ("bits_per_dim" in capsys.readouterr().out) == (
        "gray levels" in said or array.dtype == np.uint8 or array.dtype == np.int64
    )
    if "gray levels" in said:  # what is drawn are levels as the file writes them
        levels = np.unique(array).astype(float)
        assert drawn.min() >= levels.min() - 1e-6 and drawn.max() <= levels.max() + 1e-6
        assert main(["score", str(tmp_path / "out"), str(tmp_path / "draws.npy")]) == 0


@pytest.mark.long
def test_own_images_take_the_rate_and_the_preprocessing_that_images_need(tmp_path, capsys):
    np.save(tmp_path / "own.npy", gray(40, 28, 28))
    arguments = ["fit", str(tmp_path / "own.npy"), "--group", "C4", "--out", str(tmp_path / "out"), "--steps", "1"]
    assert main([*arguments, "--batch-size", "4", "--quiet"]) == 0
    about = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert "--lr 0.0003" in capsys.readouterr().out
    assert about["flow"] == "image-coupling" and "logit=0.01" in about["recipe"] and "'scales': 3" in about["recipe"]
    layers = (tmp_path / "out" / "model.json").read_text()
    assert "GSigmoid" in layers


@pytest.mark.long
def test_an_option_says_what_a_file_holds(tmp_path, capsys):
    assert fit(RANDOM.normal(size=(40, 3, 2)), tmp_path, "--group", "C2", "--events", "vectors") == 0
    assert "vectors of 6 coordinates" in capsys.readouterr().out
    assert fit(gray(40, 4, 4, levels=9), tmp_path, "--group", "C2", "--levels", "16", "--overwrite") == 0
    assert "of 16 gray levels" in capsys.readouterr().out


@pytest.mark.long
def test_one_array_of_an_archive(tmp_path, capsys):
    np.savez(tmp_path / "two.npz", x=RANDOM.normal(size=(40, 2)), labels=gray(40))
    arguments = ["fit", str(tmp_path / "two.npz"), "--group", "C4", "--out", str(tmp_path / "out"), *SMALL]
    assert main(arguments) == 2
    assert "['x', 'labels']" in (error := error_of(capsys)) and "--key" in error
    assert main([*arguments, "--key", "x"]) == 0
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "two.npz"), "--key", "x"]) == 0


@pytest.mark.long
def test_counts_are_warned_of(tmp_path, capsys, recwarn):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("default")
        assert fit(gray(60, 2, levels=5).astype(float), tmp_path, "--group", "C1") == 0
    assert "the same few values come again and again" in error_of(capsys)


# an error of the command line has no calls, keywords or names of the library; fit, load and save are English words too
NAMES = sorted(name for name in pyro_gflows.__all__ if not (name.isalpha() and name.islower()))
PYTHON = re.compile(r"\w\(\.\.\.|\b[a-z_]+=|\.as?type|reshape|" + "|".join(NAMES))


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (np.array(3.0), [], "got a single number"),
        (RANDOM.normal(size=60), [], r"got shape (60,); save it as (N, 1)"),
        (gray(60, 16), [], "got uint8"),
        (gray(60), [], "got shape (60,)"),
        (np.zeros((0, 2)), [], "is empty"),
        (np.zeros((60, 0)), [], "is empty"),
        (np.array([["a", "b"]] * 20), [], "got <U1"),
        (RANDOM.normal(size=(60, 2)) + 1j, [], "got complex128"),
        (np.full((60, 2), np.nan), [], "row 0 holds nan"),
        (np.full((60, 4, 4), np.nan), [], "row 0 holds nan"),
        (RANDOM.normal(size=(60, 2)) * 1e39, [], "more than float32 can hold"),
        (RANDOM.normal(size=(3, 2)), [], "at least 10 rows"),
        (RANDOM.normal(size=(60, 2, 2, 2, 2)), [], "expected an array of shape"),
        (RANDOM.normal(size=(60, 3)), [], "vectors of 2 components, got events of 3"),
        (RANDOM.normal(size=(60, 3, 4)), ["--group", "S4"], "exchange its axes"),
        (RANDOM.normal(size=(60, 3, 4)), ["--group", "S5"], "choose the symmetric group of as many rows, S3"),
        (RANDOM.normal(size=(60, 7)), ["--group", "S5"], "no multiple of 5"),
        (RANDOM.normal(size=(60, 6)), ["--group", "S3 x C2"], "got S3 x C2"),
        (RANDOM.normal(size=(60, 6)), ["--group", "S9"], "S9 permutes 9 rows of one length"),
        (RANDOM.normal(size=(60, 6)), ["--group", "translations"], "shift the pixels of images"),
        (RANDOM.normal(size=(60, 2)), ["--events", "images"], "expected images as an array (N, H, W)"),
        (RANDOM.normal(size=(60, 2)), ["--levels", "4"], "expected images where gray levels are given"),
        (RANDOM.normal(size=(60, 4, 4)), ["--levels", "4"], "evenly spaced grid"),
        (gray(60, 4, 4), ["--levels", "4"], "at most 4 gray levels"),
        (RANDOM.normal(size=(60, 2)), ["--key", "x"], "only .npz files have keys"),
        (gray(60, 6, 4), ["--group", "C4"], "take --group C2"),
        (gray(60, 4, 4), ["--group", "C8"], "take --group C4, which does, or --flow image-soft"),
        (gray(60, 4, 4), ["--group", "SO(3)"], "for images, got SO(3)"),
        (gray(60, 4, 4, 3), ["--group", "S3"], "for images, got S3"),
        (gray(60, 4, 4), ["--flow", "radial"], "it is for vectors; choose --flow coupling"),
        (RANDOM.normal(size=(60, 2)), ["--flow", "image-coupling"], "it is for images; choose --flow"),
        (RANDOM.normal(size=(60, 2)), ["--flow", "coupling"], "choose --flow radial or residual or ridges"),
        (RANDOM.normal(size=(60, 2)), ["--group", "O(2)", "--flow", "ridges"], "need a finite group"),
        (gray(60, 5, 5), ["--preset", "digits-image-coupling"], "leave --preset out"),
        (RANDOM.normal(size=(60, 2)), ["--variational"], "expected images of gray levels"),
        (RANDOM.normal(size=(60, 4, 4)), ["--variational"], "expected images of gray levels"),
        (RANDOM.normal(size=(60, 2)), ["--lr", "1e30", "--steps", "60"], "lower --lr (now 1e+30)"),
        (RANDOM.normal(size=(60, 2)), ["--augment", "Q3"], "got 'Q3'"),
    ],
)
@pytest.mark.filterwarnings("ignore:Encountered NaN")
def test_what_cannot_be_used_is_said_in_the_words_of_the_command_line(array, options, message, tmp_path, capsys):
    assert fit(array, tmp_path, "--group", "C4", *options) == 2
    error = error_of(capsys).replace(str(tmp_path), "")
    assert message in error
    assert not PYTHON.search(error), PYTHON.search(error)


@pytest.mark.long
def test_scores_need_values_scaled_as_the_flow_was_fitted_to(tmp_path, capsys):
    array = gray(40, 4, 4)
    assert fit(array, tmp_path, "--group", "C4") == 0
    scored = {}
    for name, other in (("as channels", array[:, None]), ("as last channel", array[..., None]), ("as is", array)):
        np.save(tmp_path / "other.npy", other)
        capsys.readouterr()
        assert main(["score", str(tmp_path / "out"), str(tmp_path / "other.npy")]) == 0
        scored[name] = capsys.readouterr().out
    assert len(set(scored.values())) == 1
    np.save(tmp_path / "other.npy", array / 255)
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "other.npy")]) == 2
    assert "256 gray levels from 0 to 255 in steps of 1" in error_of(capsys)
    np.save(tmp_path / "other.npy", gray(40, 5, 5))
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "other.npy")]) == 2
    assert "expected event shape (4, 4), received (5, 5)" in error_of(capsys)


@pytest.mark.long
def test_levels_are_not_scored_by_a_flow_of_scaled_values(tmp_path, capsys, monkeypatch):
    pytest.importorskip("sklearn")
    options = [
        "--flow",
        "image-residual",
        "--steps",
        "1",
        "--batch-size",
        "4",
        "--quiet",
        "--out",
        str(tmp_path / "out"),
    ]
    monkeypatch.setattr(
        "pyro_gflows.experiments.runs.measure", lambda *_, **__: {}
    )  # of all test images, which takes long
    monkeypatch.setattr("pyro_gflows.experiments.runs.write_pictures", lambda *_: None)
    assert main(["fit", "digits", *options]) == 0
    np.save(tmp_path / "levels.npy", gray(4, 8, 8, levels=17))
    capsys.readouterr()
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "levels.npy")]) == 2
    assert "scaled as the command sample writes them" in error_of(capsys)
    assert draws(tmp_path).dtype == np.float32
    assert main(["score", str(tmp_path / "out"), str(tmp_path / "draws.npy")]) == 0
