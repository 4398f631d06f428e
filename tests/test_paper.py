"""The experiments of the paper run by their commands, write tables and pictures, and go on by the same command."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MISSING = [name for name in ("matplotlib", "sklearn") if importlib.util.find_spec(name) is None]
PICTURES = {
    "table1": [],
    "ablation": ["ablation.png"],
    "samples": [f"{kind}-{group}.png" for kind in ("samples", "latent") for group in ("rotations", "translations")],
}


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}: pip install 'pyro-gflows[data,plots]'")
@pytest.mark.parametrize("name", PICTURES)
def test_an_experiment_runs_and_goes_on(name, tmp_path):
    rows = experiment(name, tmp_path)
    assert rows and all(row["steps"] > 0 for row in rows)
    assert all((tmp_path / picture).stat().st_size > 0 for picture in PICTURES[name])
    exact = [row for row in rows if row["group"] in ("C2", "C4", "D1", "D2", "D4")]
    assert exact and all(row["invariance_error"] < 1e-8 for row in exact)
    assert experiment(name, tmp_path) == rows  # nothing is trained again: the seconds are the same


def experiment(name, folder):
    command = [sys.executable, f"tutorials/paper/{name}.py", "--setting", "smoke", "--out", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))["rows"]
