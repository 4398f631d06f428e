"""What earlier versions wrote is read as what it was: the same densities, samples, structure, and runs."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from pyro_gflows.actions import CoordinateSplit, ImageAction, VectorAction
from pyro_gflows.cli import main
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.distributions import InvariantNormal
from pyro_gflows.evaluation import log_probs
from pyro_gflows.flows import EquivariantFlow, g_coupling_image_flow, g_dequantizer
from pyro_gflows.nn import LipschitzSum, Ridges
from pyro_gflows.serialization import load, migrations, save
from pyro_gflows.serialization.files import read_tensors, write_tensors
from pyro_gflows.serialization.migrations import FORMAT, RENAMED, migrate
from pyro_gflows.serialization.registry import build, describe, registered, registered_classes, same_description
from pyro_gflows.training import FitSettings, Validation, fit
from pyro_gflows.training.checkpoint import CHECKPOINT
from pyro_gflows.transforms import GActNorm, GCoupling, GResidual

DATA = Path(__file__).parents[1] / "data"
STOPPED = DATA / "format_2" / "stopped"
FLOWS = sorted(path.parent for path in DATA.glob("format_*/*/model.json") if (path.parent / "recorded.json").exists())
RUN = DATA / "format_2" / "run_of_images"
TOLERANCE = {"rtol": 1e-9, "atol": 1e-9}

pytestmark = pytest.mark.all_cases  # quick, and each file holds other classes

old_flow = pytest.mark.parametrize("folder", FLOWS, ids=lambda path: str(path.relative_to(DATA)))


def recorded(folder):
    """What the version that wrote the folder computed."""
    values = json.loads((folder / "recorded.json").read_text())
    return {name: None if value is None else torch.tensor(value, dtype=torch.float64) for name, value in values.items()}


def test_the_files_are_few_and_small():
    files = [path for path in DATA.rglob("*") if path.is_file() and path.suffix != ".py" and path.parent.parent != DATA]
    assert len(FLOWS) >= 20
    first, later = [], []
    for path in files:
        (first if {"format_1", "format_2"} & set(path.parts) else later).append(path.stat().st_size)
    assert sum(first) <= 350_000
    assert sum(later) <= 150_000


@old_flow
def test_an_old_file_gives_the_log_probs_that_were_recorded_with_it(folder):
    expected = recorded(folder)
    flow = load(folder)
    with torch.no_grad():
        density = flow.dist if expected["context"] is None else flow.condition(expected["context"])
        torch.testing.assert_close(density.log_prob(expected["x"]), expected["log_prob"], **TOLERANCE)


@old_flow
def test_an_old_file_gives_the_samples_that_were_recorded_with_it(folder):
    expected = recorded(folder)
    flow = load(folder)
    with torch.no_grad():
        transform = flow.transform if expected["context"] is None else flow.transform.condition(expected["context"])
        torch.testing.assert_close(transform(expected["base"]), expected["sample"], **TOLERANCE)


@old_flow
def test_an_old_file_describes_the_flow_that_is_built_from_it(folder, tmp_path):
    """So that saving it anew loses nothing; and to migrate a description of today changes nothing."""
    content = json.loads((folder / "model.json").read_text())
    flow = load(folder)
    today = migrate(content["flow"], content["format"], source="the file")
    assert same_description(json.loads(json.dumps(flow.config())), today)
    save(flow, tmp_path)
    again = json.loads((tmp_path / "model.json").read_text())
    assert again["format"] == FORMAT
    assert migrate(again["flow"], FORMAT, source="the file") == again["flow"]


def test_between_them_the_old_files_hold_most_classes():
    """Those that are part of a saved flow; what a class makes for itself is in no description."""
    kept = "|".join((folder / "model.json").read_text() for folder in FLOWS)
    rooms = tuple(f"pyro_gflows.{room}." for room in ("actions", "distributions", "nn", "numerics", "transforms"))
    known = {name for name, cls in registered_classes().items() if cls.__module__.startswith(rooms)}
    assert sum(f'"{name}"' in kept for name in known) >= 0.6 * len(known)


def test_a_run_that_an_earlier_version_was_stopped_in_goes_on_to_the_same_end(tmp_path):
    shutil.copytree(STOPPED, tmp_path, dirs_exist_ok=True)
    assert_it_goes_on(tmp_path)


def test_a_stopped_run_whose_classes_have_other_names_now_goes_on(tmp_path, monkeypatch):
    tensors, description = read_tensors(STOPPED / CHECKPOINT)
    flow = description["identity"]["flow"]
    description["identity"]["flow"] = migrate(flow, 2, source="the file")
    text = json.dumps(description)
    assert '"GActNorm"' in text
    former = json.loads(text.replace('"GActNorm"', '"FormerName"'))
    write_tensors(tmp_path / CHECKPOINT, tensors, {**former, "flow_format": FORMAT})
    with pytest.raises(ValueError, match="a run with other flow"):
        assert_it_goes_on(tmp_path)
    monkeypatch.setattr(migrations, "FORMAT", FORMAT + 1)
    monkeypatch.setattr(migrations, "RENAMED", {FORMAT: {"FormerName": "GActNorm"}})
    assert_it_goes_on(tmp_path)


def assert_it_goes_on(folder):
    """The run of ``write.py``, from its checkpoint in the folder, ends as it did without a stop."""
    expected = recorded(STOPPED)
    x = expected["x"]
    settings = FitSettings(
        steps=8, batch_size=8, seed=3, ema_decay=0.9, validation=Validation(every=2, patience=5), checkpoint_every=2
    )

    def jitter(x, generator):
        return x + 0.01 * torch.randn(x.shape, generator=generator, dtype=x.dtype)

    torch.manual_seed(0)
    action = VectorAction.plane("D4")
    terms = LipschitzSum([Ridges(action, 1, knots=4)])
    flow = EquivariantFlow(InvariantNormal(action), [GResidual(action, terms), GActNorm(action)]).double()
    fit(
        flow,
        x[:24],
        settings=settings,
        validation=x[24:],
        augment=jitter,
        folder=folder,
        resume=True,
        progress=False,
    )
    torch.testing.assert_close(log_probs(flow, x), expected["log_prob"], **TOLERANCE)


def test_a_stopped_run_with_noise_that_is_trained_too_goes_on_to_the_same_end(tmp_path):
    folder = DATA / "format_2" / "stopped_with_noise"
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    expected, x = recorded(folder), recorded(folder)["x"]
    torch.manual_seed(0)
    action = ImageAction("C2", 1, size=4)
    flow = g_coupling_image_flow(action, scales=1, blocks=1, width=1, depth=1).double()
    noise = g_dequantizer(action, GrayLevels(5, center=0.5, gain=3.0), blocks=1, width=1, depth=1).double()
    settings = FitSettings(steps=6, batch_size=8, seed=3, checkpoint_every=2)
    fit(flow, x, settings=settings, dequantize=noise, folder=tmp_path, resume=True, progress=False)
    torch.testing.assert_close(log_probs(flow, x), expected["log_prob"], **TOLERANCE)


def test_a_stopped_run_with_other_weights_is_refused(tmp_path):
    """The layers of a coupling have other weights since format 4, for which the state of Adam is not known."""
    action = VectorAction.regular("C4", copies=2)

    def run(steps, *, resume):
        flow = EquivariantFlow(InvariantNormal(action), [GCoupling(action, width=2)])
        settings = FitSettings(steps=steps, batch_size=8, checkpoint_every=2)
        fit(flow, torch.randn(16, 8), settings=settings, folder=tmp_path, resume=resume, progress=False)

    torch.manual_seed(0)
    run(2, resume=False)
    tensors, description = read_tensors(tmp_path / CHECKPOINT)
    old = {name.replace(".entries.weights", ".weights.0"): value for name, value in tensors.items()}
    write_tensors(tmp_path / CHECKPOINT, old, {**description, "flow_format": 3})
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="cannot resume: an earlier version wrote the checkpoint.*layers.0.entries"):
        run(4, resume=True)


def test_the_commands_read_a_run_of_images_of_an_earlier_version(tmp_path):
    """Its run.json says in old words how the images lie in the file."""
    images = str(RUN / "images.npy")
    assert main(["score", str(RUN), images, "--out", str(tmp_path / "scores.npy")]) == 0
    assert main(["sample", str(RUN), "-n", "3", "--out", str(tmp_path / "samples.npy")]) == 0
    np.testing.assert_allclose(np.load(tmp_path / "scores.npy"), np.load(RUN / "scores.npy"), atol=1e-3)
    np.testing.assert_array_equal(np.load(tmp_path / "samples.npy"), np.load(RUN / "samples.npy"))
    assert '"grey"' in (RUN / "run.json").read_text()


def test_a_split_of_the_user_s_own_in_an_old_file_brings_its_action():
    description = describe(GCoupling(VectorAction.signs(2), split=Halves(2), width=1, depth=1))
    arguments = {name: value for name, value in description["arguments"].items() if name in ("split", "width", "depth")}
    old = migrate({**description, "arguments": {**arguments, "moved": 0}}, 2, source="a file")
    with pytest.warns(FutureWarning, match=r"GCoupling\(split, ...\)"):
        layer = build(old)
    assert layer.action_in == VectorAction.signs(2) and layer.split == Halves(2) and layer.transformed == 0


@registered
class Halves(CoordinateSplit):
    """A split whose constructor takes no action."""

    def __init__(self, size):
        super().__init__(VectorAction.signs(size))


def test_classes_are_renamed_one_way():
    """An old name is known to the migrations alone, and leads to a class of today."""
    for step, names in RENAMED.items():
        assert step in range(1, FORMAT)
        for old, new in names.items():
            assert old not in registered_classes()
            later = [RENAMED[number] for number in sorted(RENAMED) if number > step]
            for further in later:
                new = further.get(new, new)
            assert new in registered_classes()


def test_a_renamed_class_is_found_wherever_it_is_named(monkeypatch):
    """As a class, and as a type that is an argument; the names of arguments and texts stay."""
    monkeypatch.setattr(migrations, "FORMAT", FORMAT + 2)
    monkeypatch.setattr(migrations, "RENAMED", {FORMAT: {"A": "B"}, FORMAT + 1: {"B": "C"}})
    monkeypatch.setattr(migrations, "_STEPS", {})

    def described(name):
        other = {"class": "Other", "arguments": {"inner": {"class": name, "arguments": {}}}}
        own = {"dict": {"type": "A", "class": "A", "value": {"type": name}}}
        return {"class": name, "arguments": {"A": "A", "class": "A", "kind": {"type": name}, "x": [other, own, 1.0]}}

    assert migrations.migrate(described("A"), FORMAT, source="a file") == described("C")
    assert migrations.migrate(described("B"), FORMAT + 1, source="a file") == described("C")
    assert migrations.migrate(described("A"), FORMAT + 2, source="a file") == described("A")
