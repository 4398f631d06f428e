"""The command check-data tests whether data have a symmetry."""

import numpy as np
import pytest

from pyro_gflows.cli import main

RANDOM = np.random.default_rng(0)
BRIGHTER_TO_THE_RIGHT = (RANDOM.integers(0, 64, (400, 4, 4)) * np.arange(1, 5)).astype(np.uint8)


def ask(array, folder, *options):
    np.save(folder / "own.npy", array)
    return main(["check-data", str(folder / "own.npy"), *options])


@pytest.mark.parametrize(
    ("array", "group", "wrong"),
    [
        (RANDOM.normal(size=(400, 2)), "D4", "C1"),
        (RANDOM.normal(size=(400, 2)) * [1.0, 3.0], "D2", "C4"),
        (RANDOM.normal(size=(400, 3, 2)), "S3", "C1"),
        (np.cumsum(RANDOM.normal(size=(400, 4, 4)), 2), "D1", "C4"),
        (BRIGHTER_TO_THE_RIGHT, "D1", "C4"),
        (RANDOM.normal(size=(400, 3)) * [1.0, 2.0, 4.0], "C1", "S3"),
    ],
)
def test_the_exit_code_is_1_if_data_contradict_a_group(array, group, wrong, tmp_path, capsys):
    assert ask(array, tmp_path, "--group", wrong) == (0 if wrong == "C1" else 1)
    assert ("CONTRADICTED" in capsys.readouterr().out) == (wrong != "C1")
    assert ask(array, tmp_path, "--group", group) == 0
    said = capsys.readouterr().out
    assert "is read as" in said and "do not contradict" in said


@pytest.mark.long
def test_named_data_are_tested_for_their_own_group(capsys):
    assert main(["check-data", "8gaussians", "--rows", "300"]) == 0
    assert "D8" in capsys.readouterr().out
    assert main(["check-data", "checkerboard", "--group", "D8"]) == 1


@pytest.mark.parametrize(
    ("array", "options", "message"),
    [
        (RANDOM.normal(size=(400, 2)), [], "need --group"),
        (RANDOM.normal(size=(400, 2)), ["--group", "Q8"], "--group Q8"),
        (RANDOM.normal(size=(30, 2)), ["--group", "C4"], "at least 40 rows"),
        (RANDOM.normal(size=(400, 2)), ["--group", "C4", "--level", "2"], "level"),
        (RANDOM.normal(size=(400, 3)), ["--group", "C4"], "vectors of 2 components"),
    ],
)
def test_data_and_groups_that_cannot_be_tested_are_refused(array, options, message, tmp_path, capsys):
    assert ask(array, tmp_path, *options) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


@pytest.mark.long
@pytest.mark.filterwarnings("default:the data are not symmetric")
def test_a_fit_points_to_the_command(tmp_path, capsys):
    np.save(tmp_path / "own.npy", RANDOM.normal(size=(400, 2)) + 5.0)
    options = ["--group", "C4", "--steps", "2", "--flow", "radial", "--quiet", "--out", str(tmp_path / "out")]
    assert main(["fit", str(tmp_path / "own.npy"), *options]) == 0
    warned = capsys.readouterr().err
    assert "pyro-gflows check-data" in warned and "(" + "data, flow" not in warned and "FitSettings" not in warned
