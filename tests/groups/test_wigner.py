"""Wigner's D matrices are those of lie_learn, and escnn gets them without lie_learn and past a user's own."""

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from pyro_gflows.groups.wigner import wigner_d_matrix

ROOT = Path(__file__).parents[2]
# wigner_D_matrix(degree, alpha, beta, gamma) of lie_learn 0.0.2: angles of shape (9, 3), matrices for each degree
RECORDED = load_file(ROOT / "tests" / "data" / "lie_learn" / "wigner_d.safetensors")
DEGREES = [0, 1, 2, 3, 4, 6, 10]

NEEDS_ESCNN = pytest.mark.skipif(find_spec("escnn") is None, reason="escnn is not installed")


def test_every_recorded_degree_is_compared():
    assert set(RECORDED) == {"angles", *(f"degree_{degree}" for degree in DEGREES)}
    assert RECORDED["angles"].shape == (9, 3)


@pytest.mark.parametrize("degree", DEGREES)
def test_matrices_are_those_of_lie_learn(degree):
    recorded = RECORDED[f"degree_{degree}"]
    assert recorded.dtype == torch.float64 and recorded.shape == (9, 2 * degree + 1, 2 * degree + 1)
    ours = torch.stack([torch.from_numpy(wigner_d_matrix(degree, *angles)) for angles in RECORDED["angles"].tolist()])
    assert (ours - recorded).abs().max() <= 1e-13


def test_another_basis_is_refused():
    with pytest.raises(ValueError, match="field='real'.*'complex'"):
        wigner_d_matrix(1, 0.0, 0.0, 0.0, field="complex")


def run(code, tmp_path):
    """Run code in a Python of its own, where ``lie_learn`` is a package that the user wrote."""
    package = tmp_path / "lie_learn" / "representations" / "SO3"
    package.mkdir(parents=True)
    for folder in (package, *package.parents[:2]):
        (folder / "__init__.py").write_text("")
    (package / "wigner_d.py").write_text("wigner_D_matrix = 'the user wrote this'\n")
    path = f"import sys; sys.path[:0] = [{str(tmp_path)!r}, {str(ROOT)!r}]\n"
    subprocess.run([sys.executable, "-W", "error", "-c", path + code], check=True, cwd=tmp_path)


ESCNN_WORKS = """
from pyro_gflows.groups import escnn_group
matrix = escnn_group().so3_group(3).irrep(3)(escnn_group().so3_group(3).sample())
assert abs(matrix @ matrix.T - __import__("numpy").eye(7)).max() < 1e-12
"""
USERS_OWN = """
from lie_learn.representations.SO3.wigner_d import wigner_D_matrix
assert wigner_D_matrix == "the user wrote this"
"""


@NEEDS_ESCNN
@pytest.mark.long
@pytest.mark.parametrize("first", ["escnn", "lie_learn"])
def test_a_lie_learn_of_the_users_own_is_untouched(first, tmp_path):
    parts = [ESCNN_WORKS, "import escnn, escnn.nn", USERS_OWN]
    run("\n".join(parts if first == "escnn" else [USERS_OWN, *parts]), tmp_path)


@NEEDS_ESCNN
@pytest.mark.long
def test_lie_learn_is_not_imported(tmp_path):
    left = "assert not [name for name in sys.modules if name.split('.')[0] == 'lie_learn']"
    run(f"sys.modules['lie_learn'] = None\n{ESCNN_WORKS}\ndel sys.modules['lie_learn']\n{left}", tmp_path)
