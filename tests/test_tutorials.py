"""Every tutorial runs, and its notebook has the same text, with outputs and pictures."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
TUTORIALS = sorted((ROOT / "tutorials").glob("*.py"))
NEEDED = ("arviz", "ipykernel", "jupytext", "matplotlib", "nbclient", "sklearn")
MISSING = [name for name in NEEDED if importlib.util.find_spec(name) is None]

each_tutorial = pytest.mark.parametrize("source", TUTORIALS, ids=lambda source: source.stem)


@pytest.mark.slow
@pytest.mark.skipif(bool(MISSING), reason=f"needs {MISSING}: pip install 'pyro-gflows[tutorials]'")
@each_tutorial
def test_every_tutorial_runs(source, tmp_path):
    command = [sys.executable, "scripts/tutorials.py", "--smoke", "--out", str(tmp_path), source.stem]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    assert _sources(tmp_path / f"{source.stem}.ipynb") == _sources(source.with_suffix(".ipynb")), (
        f"the notebook of {source.name} is not of this text: bash scripts/tutorials.sh {source.stem}"
    )


@each_tutorial
def test_the_notebooks_on_show_have_outputs_and_pictures(source):
    cells = json.loads(source.with_suffix(".ipynb").read_text(encoding="utf-8"))["cells"]
    outputs = [output for cell in cells if cell["cell_type"] == "code" for output in cell["outputs"]]
    assert any("image/png" in output.get("data", {}) for output in outputs)
    assert [output for output in outputs if output["output_type"] == "error" or output.get("name") == "stderr"] == []


def _sources(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    return [(cell["cell_type"], "".join(cell["source"])) for cell in cells]
