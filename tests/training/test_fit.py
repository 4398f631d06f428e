import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyro
import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    GSigmoid,
    GSqueeze,
    ImageAction,
    InvariantNormal,
    VectorAction,
    g_coupling,
)
from pyro_gflows.datasets import GrayLevels, load_data
from pyro_gflows.evaluation import invariance_error, log_probs, nll
from pyro_gflows.serialization import load, save
from pyro_gflows.serialization.files import read_tensors
from pyro_gflows.targets import density
from pyro_gflows.training import Adam, Constant, FitDiverged, FitSettings, OneCycle, Validation, fit, random_elements
from pyro_gflows.training.checkpoint import CHECKPOINT
from tests.small_flows import points, small_flow


def run(flow=None, data=None, **arguments):
    settings = arguments.pop("settings", FitSettings(steps=20, batch_size=64))
    flow = flow or small_flow()
    data = points() if data is None else data
    return flow, fit(flow, data, settings=settings, progress=False, **arguments)


@pytest.mark.long
def test_the_likelihood_rises_and_every_parameter_moves():
    flow = small_flow()
    flow.initialize(points())
    before = {name: p.detach().clone() for name, p in flow.named_parameters()}
    start = nll(flow, points(seed=1))
    _, result = run(flow, settings=FitSettings(steps=150, batch_size=200), validation=points(seed=1))
    assert result.validation_nll is not None and result.validation_nll < start - 0.3
    assert result.validation_nll == pytest.approx(nll(flow, points(seed=1)), abs=1e-12)
    assert not flow.training
    for name, p in flow.named_parameters():
        assert p.numel() == 0 or not torch.equal(p, before[name]), name


def test_a_density_is_its_own_sampler():
    _, result = run(data=density("8gaussians"))
    assert result.steps == 20 and len(result.train_curve) == 20


def test_the_callers_random_state_and_parameter_store_are_left_alone():
    pyro.clear_param_store()
    pyro.param("mine", torch.tensor(1.0))
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    run()
    assert torch.equal(torch.rand(3), expected)
    assert list(pyro.get_param_store().keys()) == ["mine"]
    pyro.clear_param_store()


@pytest.mark.long
def test_the_same_seed_gives_the_same_weights_and_another_seed_others():
    states = [run(settings=FitSettings(steps=5, batch_size=64, seed=seed))[0].state_dict() for seed in (1, 1, 2)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert not all(torch.equal(states[0][name], states[2][name]) for name in states[0])


@dataclass(frozen=True)
class UnitDescent:
    lr: float = 1.0
    clip_norm: float | None = 1e-3

    def make(self, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=self.lr)


def test_clipping_is_over_all_parameters_together():
    flow = small_flow()
    flow.initialize(points(64))
    before = torch.cat([p.detach().flatten() for p in flow.parameters()])
    data = points(64)
    run(flow, data, settings=FitSettings(steps=1, batch_size=64, optimizer=UnitDescent(), schedule=Constant()))
    after = torch.cat([p.detach().flatten() for p in flow.parameters()])
    assert float((after - before).norm()) == pytest.approx(1e-3, rel=1e-4)


def test_an_early_stop_returns_the_best_weights():
    settings = FitSettings(
        steps=400,
        batch_size=16,
        optimizer=Adam(lr=0.05),
        schedule=Constant(),
        validation=Validation(every=5, patience=2),
    )
    _, result = run(data=points(16), settings=settings, validation=points(500, seed=1))
    assert result.stopped_early and result.steps < 400
    assert result.validation_nll == pytest.approx(min(value for _, value in result.validation_curve), abs=1e-12)


@pytest.mark.long
def test_averaged_weights_are_returned_and_validated(tmp_path):
    settings = FitSettings(steps=30, batch_size=64, ema_decay=0.9, validation=Validation(every=30))
    flow, result = run(settings=settings, folder=tmp_path, validation=points(seed=1))
    stored, _ = read_tensors(tmp_path / CHECKPOINT)
    for name, p in flow.named_parameters():
        assert torch.equal(p, stored[f"average/{name}"])
        assert p.numel() == 0 or not torch.equal(p, stored[f"flow/{name}"])
    assert result.validation_curve == [(30, result.validation_nll)]


def test_augmentation_moves_every_event_by_its_own_element():
    flow = small_flow("D4")
    x = torch.tensor([[1.0, 0.2]]).repeat(400, 1).double()
    augmented = random_elements(flow.action)(x, torch.Generator().manual_seed(0))
    images = {tuple(row) for row in augmented.round(decimals=9).tolist()}
    assert len(images) == 8
    assert run(flow, points(), augment=random_elements(flow.action))[1].steps == 20


@pytest.mark.long
def test_runs_resumes_and_scores_on_any_device(device, tmp_path):
    flow = small_flow().to(device)
    settings = FitSettings(steps=8, batch_size=64, ema_decay=0.9, validation=Validation(every=2, patience=9))
    for resume in (False, True):
        _, result = run(flow, settings=settings, validation=points(seed=1), folder=tmp_path, resume=resume)
    assert result.validation_nll is not None and result.steps == 8
    x = points(20, seed=2).to(device)
    assert log_probs(flow, x).device.type == device.type
    assert invariance_error(flow, x, flow.action) < 1e-10
    save(flow, tmp_path)
    for place in ("cpu", device):
        assert torch.allclose(log_probs(load(tmp_path, device=place), x.to(place)).to(device), log_probs(flow, x))


def poisoned(at, value):
    calls = 0

    def augment(x, generator):
        nonlocal calls
        calls += 1
        return torch.cat([x[:-1], x[-1:] * value]) if calls == at else x

    return augment


def test_nan_in_a_batch_stops_at_the_last_good_checkpoint(tmp_path):
    settings = FitSettings(steps=40, batch_size=64, checkpoint_every=10)
    flow = small_flow()
    with pytest.raises(FitDiverged, match=r"step 26 .*sampler or augmentation.*checkpoint of step 20"):
        # call 1 is the batch that initializes
        run(flow, settings=settings, folder=tmp_path, augment=poisoned(28, math.nan))
    stored, description = read_tensors(tmp_path / CHECKPOINT)
    assert description["progress"]["step"] == 20
    assert all(torch.equal(value, stored[f"flow/{name}"]) for name, value in flow.state_dict().items())


def test_a_diverging_loss_stops_and_says_what_to_change():
    settings = FitSettings(
        steps=200,
        batch_size=64,
        optimizer=UnitDescent(lr=30.0, clip_norm=None),
        schedule=Constant(),
        checkpoint_every=1,
    )
    flow = small_flow()
    with pytest.raises(FitDiverged, match=r"lower the learning rate \(now lr=30.0\).*clip_norm=None.*initialize=True"):
        run(flow, settings=settings)
    assert all(p.isfinite().all() for p in flow.parameters())


IMAGE = ImageAction("C2", size=2)
WEIGHTLESS = EquivariantFlow(InvariantNormal(IMAGE), [GSqueeze(IMAGE)])


def with_nan(row):
    x = points()
    x[row, 1] = math.nan
    return x


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"data": with_nan(7)}, ValueError, "row 7 holds nan"),
        ({"data": torch.zeros(9, 3)}, ValueError, r"expected event shape \(2,\), received \(3,\)"),
        ({"data": torch.zeros(9, 2, dtype=torch.long)}, TypeError, "expected floating-point data, got int64"),
        ({"data": torch.zeros(0, 2)}, ValueError, "is empty"),
        ({"flow": torch.nn.Linear(2, 2)}, TypeError, "expected an EquivariantFlow, got Linear"),
        ({"flow": WEIGHTLESS, "data": torch.zeros(9, 4, 1, 1)}, ValueError, "a flow with weights to fit, got none in"),
        ({"data": [[0.0, 1.0]]}, TypeError, "data: expected a tensor or an array .* got list"),
        ({"data": np.zeros((9, 3))}, ValueError, r"expected event shape \(2,\), received \(3,\)"),
        ({"settings": {"steps": 3}}, TypeError, r"expected settings=FitSettings\(...\), got dict"),
        ({"data": lambda n, generator: torch.zeros(n, 3)}, ValueError, r"the first batch: expected event shape \(2,\)"),
        ({"validation": with_nan(3)}, ValueError, "validation: row 3"),
        ({"resume": True}, ValueError, "expected a folder to resume from"),
        (
            {"settings": FitSettings(validation=Validation(patience=1))},
            ValueError,
            "early stopping needs validation",
        ),
    ],
)
def test_bad_input_is_refused_before_training(arguments, error, message):
    with pytest.raises(error, match=message):
        run(**arguments)


def test_a_folder_that_is_not_writable_is_refused_before_training(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match="cannot write to the output folder"):
        run(folder=tmp_path / "file" / "out")


@pytest.mark.parametrize(
    "make",
    [
        lambda: FitSettings(steps=0),
        lambda: FitSettings(ema_decay=1.0),
        lambda: Adam(lr=0.0),
        lambda: Adam(clip_norm=-1.0),
        lambda: OneCycle(warmup=0.0),
        lambda: Validation(every=0),
    ],
)
def test_impossible_settings_are_refused(make):
    with pytest.raises(ValueError, match="expected"):
        make()


@pytest.mark.parametrize(
    ("draw", "error", "message"),
    [
        (
            lambda n, generator: torch.randint(9, (n, 2), generator=generator),
            TypeError,
            "floating-point data, got int64",
        ),
        (lambda n, generator: torch.zeros(n, 3), ValueError, r"the first batch.*\(2,\)"),
        (lambda n, generator: torch.full((n, 2), 1e200, dtype=torch.float64), ValueError, "too large for float32"),
    ],
    ids=["integers", "another shape", "too large"],
)
def test_the_first_batch_of_a_sampler_is_looked_at_before_it_is_converted(draw, error, message):
    with pytest.raises(error, match=message):
        run(small_flow().float(), draw)


def test_images_outside_the_interval_of_the_last_layer_are_refused_with_both_ranges():
    action = ImageAction("C4", size=4)
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action), GSigmoid(action, GrayLevels(17).interval())])
    levels = torch.randint(17, (50, 1, 4, 4), generator=torch.Generator().manual_seed(0)).float()
    with pytest.raises(ValueError, match=r"between -0.5556 and 0.5556.*GSigmoid.*between 0 and 16.*scaling.dequantize"):
        fit(flow, levels, settings=FitSettings(steps=1), progress=False)


def test_a_data_set_is_refused_with_the_name_of_its_part():
    data = load_data("rings")
    for call in (lambda: fit(small_flow(), data, progress=False), lambda: nll(small_flow(), data)):
        with pytest.raises(TypeError, match=r"got DataSet; pass data.train"):
            call()


def test_a_flow_that_takes_a_context_is_refused_with_the_loop_to_write():
    action = VectorAction.plane("D4", copies=2)
    flow = EquivariantFlow(InvariantNormal(action), [g_coupling(action, context_action=VectorAction.regular("D4"))])
    with pytest.raises(ValueError, match=r"data without a context.*flow.condition\(context\).log_prob\(x\)"):
        fit(flow, torch.randn(10, 4), progress=False)
