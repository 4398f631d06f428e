import json
import sys

import pytest

from pyro_gflows.cli import comparison, main
from pyro_gflows.experiments.presets import Preset
from pyro_gflows.training import FitSettings


@pytest.mark.long
def test_the_demo_prints_a_table_and_draws_a_figure(tmp_path, monkeypatch, capsys):
    pytest.importorskip("matplotlib")
    pytest.importorskip("sklearn")
    short = FitSettings(steps=2, batch_size=32)
    tiny = [
        Preset("rings-O(2)", "rings", "O(2)", "radial", {}, short, shortened=True),
        Preset("digits-C1", "digits", "C1", "coupling", {"blocks": 1, "width": 4}, short, augment="C4", shortened=True),
    ]
    monkeypatch.setattr(comparison, "DEMO", tiny)
    assert main(["demo", "--out", str(tmp_path), "--seed", "1"]) == 0
    assert (tmp_path / "demo.png").read_bytes().startswith(b"\x89PNG")
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith(("rings ", "digits "))]
    assert len(table) == 2
    for preset, line in zip(tiny, table, strict=True):
        metrics = json.loads((tmp_path / preset.name / "metrics.json").read_text())
        assert metrics["seed"] == 1 and metrics["shortened"]
        assert str(metrics["parameters"]) in line
        figure = metrics["gap"] if preset.data == "rings" else metrics["group_bits_per_dim"]
        assert f"{figure:.4f}" in line
    plain = json.loads((tmp_path / "digits-C1" / "metrics.json").read_text())
    assert plain["invariance_group"] == "C4" and plain["augment"] == "C4"
    assert plain["symmetrized_bits_per_dim"] <= plain["group_bits_per_dim"]


def test_what_is_missing_is_reported_before_the_fits(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["demo", "--out", str(tmp_path / "demo")]) == 2
    assert "pyro-gflows[plots]" in capsys.readouterr().err
    assert list((tmp_path / "demo").iterdir()) == []
