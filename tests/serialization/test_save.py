import json
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch

from pyro_gflows.evaluation import log_probs
from pyro_gflows.serialization import load, save
from tests.small_flows import points, small_flow

ROOT = Path(__file__).parents[2]


def trained(seed=0):
    flow = small_flow(seed=seed)
    flow.initialize(points())
    return flow


@pytest.mark.long
def test_a_new_process_gives_identical_log_probs(tmp_path):
    flow = trained()
    save(flow, tmp_path)
    script = f"""
        import sys
        import numpy as np, torch
        sys.path.insert(0, {str(ROOT)!r})
        from pyro_gflows.serialization import load
        from pyro_gflows.evaluation import log_probs
        from tests.small_flows import points
        np.save({str(tmp_path / "scores.npy")!r}, log_probs(load({str(tmp_path)!r}), points(seed=4)).numpy())
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)
    np = pytest.importorskip("numpy")
    assert torch.equal(torch.from_numpy(np.load(tmp_path / "scores.npy")), log_probs(flow, points(seed=4)))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_dtype_is_kept(tmp_path, dtype):
    flow = trained().to(dtype)
    save(flow, tmp_path)
    again = load(tmp_path)
    assert not again.training
    assert torch.equal(log_probs(again, points().to(dtype)), log_probs(flow, points().to(dtype)))


def test_loading_never_unpickles(tmp_path, monkeypatch):
    save(trained(), tmp_path)

    def refuse(*args, **kwargs):
        raise AssertionError("unpickled")

    for name in ("load", "loads", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    monkeypatch.setattr(torch, "load", refuse)
    load(tmp_path)


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_missing_and_truncated_files_are_refused(tmp_path, name):
    save(trained(), tmp_path)
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(ValueError, match="truncated or damaged"):
        load(tmp_path)
    path.unlink()
    with pytest.raises(ValueError, match="no such file"):
        load(tmp_path)


def test_weights_of_another_model_are_refused(tmp_path):
    save(trained(0), tmp_path / "a")
    save(trained(1), tmp_path / "b")
    (tmp_path / "a" / "model.safetensors").write_bytes((tmp_path / "b" / "model.safetensors").read_bytes())
    with pytest.raises(ValueError, match="does not belong"):
        load(tmp_path / "a")


def test_an_unknown_class_in_the_description_is_refused(tmp_path):
    save(trained(), tmp_path)
    path = tmp_path / "model.json"
    description = json.loads(path.read_text())
    description["flow"]["class"] = "os.system"
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match="registered"):
        load(tmp_path)


def test_a_failed_write_leaves_the_old_model(tmp_path):
    save(trained(0), tmp_path)
    before = (tmp_path / "model.safetensors").read_bytes()
    flow = trained(1)
    flow.config = lambda: {"not": object()}  # type: ignore[method-assign, assignment, dict-item, return-value]
    with pytest.raises(TypeError):
        save(flow, tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == before


def test_a_file_of_a_later_version_is_refused_before_anything_else_in_it_is_read(tmp_path):
    (tmp_path / "model.json").write_text('{"format": 1000}')
    with pytest.raises(ValueError, match="has format 1000, expected one from 1 to"):
        load(tmp_path)
