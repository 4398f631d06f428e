"""A flow under the Trainer of Lightning: the curve, the weights and the errors of fit."""

import dataclasses
import gc
import math
import subprocess
import sys

import lightning
import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader, Dataset, TensorDataset

from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.lightning import FlowData, FlowModule
from pyro_gflows.numerics import RouletteLogDet
from pyro_gflows.training import (
    Adam,
    Constant,
    Energy,
    FitDiverged,
    FitSettings,
    Likelihood,
    TorchOptimizer,
    Validation,
    fit,
    fit_energy,
)
from tests.lightning.curves import QUIET, SETTINGS, TRAIN, VALIDATION, Curve, same_weights, trained
from tests.small_flows import points, small_flow


class Labeled(Dataset):
    def __len__(self):
        return len(TRAIN)

    def __getitem__(self, index):
        return TRAIN[index], index


def fresh(n, generator):
    return points(n, seed=int(torch.randint(99, (1,), generator=generator)))


def written(folder):
    np.save(folder / "events.npy", TRAIN.numpy())
    return folder / "events.npy"


DATA = {
    "tensor": lambda folder: TRAIN,
    "array": lambda folder: TRAIN.numpy(),
    "file": written,
    "dataset": lambda folder: Labeled(),
    "loader": lambda folder: DataLoader(Labeled(), batch_size=50, shuffle=True),
    "sampler": lambda folder: fresh,
}


@pytest.mark.long
@pytest.mark.parametrize("data", DATA)
def test_the_curve_and_the_weights_are_those_of_fit(data, tmp_path):
    expected = small_flow()
    result = fit(expected, DATA[data](tmp_path), settings=SETTINGS, validation=VALIDATION, progress=False)
    state = torch.get_rng_state()
    curve, flow = trained(data=DATA[data](tmp_path))
    assert curve.train == result.train_curve
    assert curve.validation == result.validation_curve and len(curve.validation) == 2
    assert same_weights(flow, expected) and not flow.training
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.long
def test_random_log_dets_draw_as_in_fit_and_a_run_resumes_in_the_middle_of_an_epoch(tmp_path):
    """Epochs have 4 batches, so that step 7 is in the middle of one."""
    expected = small_flow(log_det=RouletteLogDet())
    result = fit(expected, TRAIN, settings=SETTINGS, validation=VALIDATION, progress=False)
    path = tmp_path / "half.ckpt"
    unbroken, flow = trained(small_flow(log_det=RouletteLogDet()), curve=Curve(7, path))
    assert unbroken.train == result.train_curve and unbroken.validation == result.validation_curve
    torch.rand(3)
    resumed, other = trained(small_flow(log_det=RouletteLogDet(), seed=5), checkpoint=path)
    assert resumed.rows == unbroken.rows[7:] and resumed.train == unbroken.train[7:]
    assert resumed.validation == unbroken.validation[1:]
    assert same_weights(flow, expected) and same_weights(other, expected)
    with pytest.raises(ValueError, match="cannot resume: the first batch of this run differs"):
        trained(data=TRAIN + 1.0, checkpoint=path)


@pytest.mark.long
def test_a_run_resumes_at_the_end_of_an_epoch(tmp_path):
    unbroken, flow = trained(curve=Curve(8, tmp_path / "two_epochs.ckpt"))
    resumed, other = trained(small_flow(seed=5), checkpoint=tmp_path / "two_epochs.ckpt")
    assert resumed.rows == unbroken.rows[8:] and resumed.train == unbroken.train[8:] and same_weights(flow, other)


@pytest.mark.long
def test_an_energy_needs_no_data_and_resumes(tmp_path):
    settings = FitSettings(steps=12, batch_size=40)

    def log_density(x):
        return -(x.square().sum(-1) - 2.0).square()

    expected, path = small_flow(), tmp_path / "half.ckpt"
    report = fit_energy(expected, log_density, settings=settings, progress=False)
    curve, flow = trained(Energy(small_flow(), log_density, settings=settings), data=None, curve=Curve(5, path))
    assert curve.train == report.run.train_curve and same_weights(flow.module, expected)
    resumed, other = trained(Energy(small_flow(seed=5), log_density, settings=settings), data=None, checkpoint=path)
    assert resumed.train == curve.train[5:] and same_weights(other.module, expected)


@pytest.mark.long
def test_an_objective_with_data_of_its_own_needs_no_data_module():
    expected = small_flow()
    result = fit(expected, TRAIN, settings=SETTINGS, validation=VALIDATION, progress=False)
    data = FlowData(TRAIN, VALIDATION)  # prepares nothing before a Trainer asks for it
    with pytest.raises(RuntimeError, match="expected a Trainer to set up the data"):
        data.train_dataloader()
    own = Likelihood(small_flow(), as_rows(TRAIN), settings=SETTINGS, validation=as_rows(VALIDATION))
    curve, objective = trained(own, data=None)
    assert curve.train == result.train_curve and curve.validation == result.validation_curve
    assert same_weights(objective.module, expected)


@pytest.mark.long
def test_loaders_of_the_user_give_events_with_labels():
    """Layers are set from the first batch of the loader, and a step is the mean over its batch."""
    loader = DataLoader(TensorDataset(TRAIN.float() * 3 + 1, torch.arange(301)), batch_size=100, drop_last=True)
    flow, expected, curve = small_flow(), small_flow(), Curve()
    expected.train()
    first = next(iter(loader))[0].double()
    expected.initialize(first)
    with torch.no_grad():
        start = -expected(first).mean().item()
    settings = FitSettings(steps=3, optimizer=Adam(lr=1e-3))
    options = {**QUIET, "enable_checkpointing": False, "max_steps": 3, "callbacks": [curve]}
    lightning.Trainer(**options).fit(FlowModule(flow, settings=settings), loader, loader)
    assert curve.train[0][1] == pytest.approx(start, rel=1e-12)
    assert len(curve.train) == 3
    nll = -torch.cat([flow(batch.double()) for batch, _ in loader]).mean().item()
    assert curve.validation[-1][1] == pytest.approx(nll, rel=1e-12)


@pytest.mark.long
def test_the_schedule_and_the_clipping_are_those_of_the_settings():
    """By hand, with gradient descent; the Trainer's own clipping goes before that of the settings."""
    rates = (1.0, 0.5, 0.25, 0.125)
    settings = FitSettings(
        steps=4,
        batch_size=301,
        optimizer=TorchOptimizer(torch.optim.SGD, lr=0.1, clip_norm=0.1),
        schedule=lambda done: rates[round(4 * done)],
        validation=Validation(every=1),
    )
    for given, norm in ((None, 0.1), (0.05, 0.05)):
        flow, expected = small_flow(), small_flow()
        trained(flow, settings=settings, validation=None, gradient_clip_val=given)
        expected.initialize(TRAIN)
        expected.train()
        for rate in rates:
            loss = -expected(TRAIN).mean()
            gradients = torch.autograd.grad(loss, list(expected.parameters()), allow_unused=True)
            size = math.sqrt(sum(float(g.square().sum()) for g in gradients if g is not None))
            assert size > norm
            with torch.no_grad():
                for weight, gradient in zip(expected.parameters(), gradients, strict=True):
                    if gradient is not None:
                        weight -= 0.1 * rate * gradient * norm / (size + 1e-6)
        assert same_weights(flow, expected, tolerance=1e-9)


@pytest.mark.long
def test_a_loss_that_is_not_finite_ends_the_run_with_advice():
    def sampler(n, generator):
        sampler.calls += 1
        return points(n) * (math.nan if sampler.calls > 4 else 1.0)

    sampler.calls, flow, state = 0, small_flow(), torch.get_rng_state()
    with pytest.raises(FitDiverged, match="the batch of step 3 holds NaN or infinity: check the sampler"):
        trained(flow, data=sampler, validation=None)
    assert all(weight.isfinite().all() for weight in flow.parameters()) and not flow.training
    assert torch.equal(torch.get_rng_state(), state)
    wild = FitSettings(steps=9, batch_size=50, optimizer=Adam(lr=1e9), schedule=Constant())
    with pytest.raises(FitDiverged, match=r"training diverged: .* lower the learning rate \(now lr=1000000000.0\)"):
        trained(settings=wild, validation=None)


@pytest.mark.long
@pytest.mark.parametrize("where", ["training", "validation"])
def test_a_run_that_fails_leaves_the_random_state_and_the_mode_as_they_were(where):
    class Failing(Likelihood):
        def forward(self, batch, step=0):
            if step == 3 and where == "training":
                raise LookupError("no such shelf")
            return super().forward(batch, step)

        def tally(self, batch):
            raise LookupError("no such shelf")

    flow, state = small_flow(log_det=RouletteLogDet()), torch.get_rng_state()
    given = {"validation": None} if where == "training" else {}
    with pytest.raises(LookupError):
        trained(Failing(flow, settings=SETTINGS), num_sanity_val_steps=0, **given)
    gc.collect()
    assert torch.equal(torch.get_rng_state(), state) and not flow.training


@pytest.mark.long
def test_a_checkpoint_that_is_written_after_a_run_goes_on_with_its_random_draws(tmp_path):
    short = dataclasses.replace(SETTINGS, steps=9, schedule=Constant())
    settings = dataclasses.replace(SETTINGS, schedule=Constant())
    whole, expected = trained(small_flow(log_det=RouletteLogDet()), settings=settings)
    module = FlowModule(small_flow(log_det=RouletteLogDet()), settings=short)
    trainer = lightning.Trainer(**QUIET, enable_checkpointing=False, max_steps=9)
    trainer.fit(module, FlowData(TRAIN, VALIDATION))
    trainer.save_checkpoint(tmp_path / "end.ckpt")
    flow = small_flow(log_det=RouletteLogDet())
    curve, _ = trained(flow, settings=settings, checkpoint=tmp_path / "end.ckpt")
    assert curve.train == whole.train[9:] and same_weights(flow, expected)


@pytest.mark.long
def test_a_checkpoint_gives_the_flow_back_and_trainer_validate_scores_it(tmp_path):
    _, flow = trained(curve=Curve(20, tmp_path / "last.ckpt"))
    module = FlowModule.load_from_checkpoint(tmp_path / "last.ckpt", objective=small_flow(seed=3), settings=SETTINGS)
    assert same_weights(module.objective.module, flow)
    options = {**QUIET, "enable_checkpointing": False}
    scores = lightning.Trainer(**options).validate(module, FlowData(TRAIN, VALIDATION), verbose=False)
    assert scores[0]["validation_nll"] == pytest.approx(-flow(VALIDATION).mean().item(), rel=1e-12)


def test_what_the_trainer_cannot_do_is_refused():
    flow = small_flow()
    with pytest.raises(TypeError, match="expected an objective such as .* or a flow, got Linear"):
        FlowModule(torch.nn.Linear(1, 1))
    with pytest.raises(ValueError, match=r"EMAWeightAveraging\(decay=0.9\)"):
        FlowModule(flow, settings=FitSettings(ema_decay=0.9))
    with pytest.raises(ValueError, match=r'EarlyStopping\("validation_nll", patience=3\)'):
        FlowModule(flow, settings=FitSettings(validation=Validation(patience=3)))
    with pytest.raises(ValueError, match=r"to be one of 32-true, 64-true, bf16-mixed, got 'bf16-true'"):
        trained(flow, precision="bf16-true")
    with pytest.raises(ValueError, match="data: expected event shape"):
        trained(flow, data=np.zeros((10, 3)))
    with pytest.raises(ValueError, match=r"expected data to take batches from, got Likelihood\(flow\) without data"):
        trained(flow, data=None)
    with pytest.raises(ValueError, match="every weight is frozen"):
        FlowModule(flow.requires_grad_(False))


@pytest.mark.long
def test_the_package_does_without_lightning_until_the_room_is_asked_for():
    code = (
        "import sys, pyro_gflows, pyro_gflows.training, pyro_gflows.experiments, pyro_gflows.cli\n"
        "assert not any(name.split('.')[0] == 'lightning' for name in sys.modules)\n"
        "sys.modules['lightning'] = None\n"
        "try:\n    import pyro_gflows.lightning\n"
        "except ImportError as error:\n    print(error)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs Lightning, which is not installed: pip install 'pyro-gflows[lightning]'" in found.stdout
