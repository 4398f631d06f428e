"""One training run by hand: every number of a trainer against its definition, on a loss of known gradient."""

import math

import pytest
import torch
from torch import nn

from pyro_gflows.datasets.rows import as_rows
from pyro_gflows.training import Constant, FitDiverged, FitSettings, Ramp, TorchOptimizer, Validation
from pyro_gflows.training.objectives.base import Objective
from pyro_gflows.training.objectives.likelihood import Likelihood
from pyro_gflows.training.trainer import Trainer
from tests.small_flows import points, small_flow

GOAL = torch.tensor([3.0, -1.0], dtype=torch.float64)


class Bowl(nn.Module):
    def __init__(self):
        super().__init__()
        self.place = nn.Parameter(torch.zeros(2, dtype=torch.float64))


class Descent(Objective):
    """Minimizes half the squared distance from the goal, whose gradient is the way from there."""

    def forward(self, batch, step):
        assert self.module.training
        return 0.5 * (self.module.place - GOAL).square().sum()

    def validate(self):
        return float((self.module.place.detach() - GOAL).norm()), 1


def descent(steps=8, *, lr=0.1, schedule=None, clip_norm=None, **options):
    sgd = TorchOptimizer(torch.optim.SGD, lr=lr, clip_norm=clip_norm)
    settings = FitSettings(steps=steps, optimizer=sgd, schedule=schedule or Constant(), **options)
    trainer = Trainer(Descent(Bowl()), settings=settings)
    trainer.start()
    return trainer


@pytest.mark.parametrize("clip_norm", [None, 0.5, 2.5])
def test_steps_follow_the_schedule_and_the_clipped_gradient(clip_norm):
    trainer = descent(schedule=Ramp(start=1.0, end=0.25, until=0.5), clip_norm=clip_norm)
    place, smooth = torch.zeros(2, dtype=torch.float64), None
    for step in range(8):
        gradient = place - GOAL
        value = 0.5 * float(gradient.square().sum())
        assert trainer.step() == pytest.approx(value, rel=1e-12)
        smooth = value if smooth is None else 0.9 * smooth + 0.1 * value
        assert trainer.progress.smooth_loss == pytest.approx(smooth, rel=1e-12)
        factor = max(0.25, 1.0 - 0.75 * (step / 8) / 0.5)
        if clip_norm is not None:
            gradient = gradient * min(1.0, clip_norm / float(gradient.norm()))
        place = place - 0.1 * factor * gradient
        torch.testing.assert_close(trainer.module.place.detach(), place, rtol=1e-5, atol=1e-6)
        place = trainer.module.place.detach().clone()  # torch divides by the norm plus 1e-6
    assert trainer.progress.step == 8 and trainer.progress.seconds > 0
    assert [step for step, _ in trainer.progress.train_curve] == list(range(1, 9))


@pytest.mark.parametrize(("steps", "apart"), [(499, 1), (500, 1), (999, 1), (1000, 2), (1500, 3)])
def test_the_curve_that_is_kept_has_about_500_points(steps, apart):
    trainer = descent(steps)
    values = [trainer.step() for _ in range(6)]
    assert trainer.progress.train_curve == [(k, values[k - 1]) for k in range(apart, 7, apart)]


@pytest.mark.parametrize(("value", "what"), [(math.nan, "the loss is nan"), (math.inf, "the loss is inf")])
def test_a_loss_that_is_not_finite_stops_before_the_step(value, what):
    trainer = descent()
    trainer.step()
    before = trainer.module.place.detach().clone()
    trainer.objective.forward = lambda batch, step: trainer.module.place.sum() * value
    with pytest.raises(FitDiverged, match=f"{what} at step 1; lower the learning rate .now lr=0.1. or clip harder"):
        trainer.step()
    assert torch.equal(trainer.module.place.detach(), before) and trainer.progress.step == 1


def test_a_gradient_that_is_not_finite_stops_before_the_step():
    trainer = descent()
    trainer.objective.forward = lambda batch, step: trainer.module.place.abs().sqrt().sum()  # of slope inf * 0 at 0
    with pytest.raises(FitDiverged, match=r"the gradient has norm (nan|inf) at step 0 \(loss 0\)"):
        trainer.step()
    assert torch.equal(trainer.module.place.detach(), torch.zeros(2)) and trainer.progress.step == 0


def test_best_weights_go_before_averaged_ones_and_those_before_the_last():
    trainer = descent(ema_decay=0.5)
    average = torch.zeros(2, dtype=torch.float64)
    for step in range(1, 5):
        trainer.step()
        average = average + (1 - min(0.5, (1 + step) / (10 + step))) * (trainer.module.place.detach() - average)
    last = trainer.module.place.detach().clone()
    figure = trainer.finish()
    assert figure == pytest.approx(float((average - GOAL).norm()), rel=1e-12)
    torch.testing.assert_close(trainer.module.place.detach(), average, rtol=1e-12, atol=1e-12)
    assert not trainer.module.training and not torch.equal(last, average)
    assert not any(value.requires_grad for value in trainer._average.values.values())
    trainer._best = {"place": GOAL.clone()}
    assert trainer.finish() == 0.0

    plain = descent()
    plain.step()
    assert plain.finish() == pytest.approx(0.9 * math.sqrt(10), rel=1e-12)


@pytest.mark.parametrize(("patience", "count", "out"), [(2, 1, False), (2, 2, True), (2, 3, True), (None, 99, False)])
def test_patience_ends_at_that_many_validations_without_gain(patience, count, out):
    trainer = descent(validation=Validation(patience=patience))
    trainer.progress.validations_without_gain = count
    assert trainer.out_of_patience == out


def test_the_validation_loss_is_told_after_a_validation_at_this_step_only():
    trainer = descent()
    trainer.step()
    assert trainer.losses(4.0) == {"train": 4.0}
    trainer.progress.validation_curve.append((1, 2.5))
    assert trainer.losses(4.0) == {"train": 4.0, "validation": 2.5}
    trainer.step()
    assert trainer.losses(3.0) == {"train": 3.0}


@pytest.mark.parametrize(("steps", "stopped"), [(8, True), (12, False)])
def test_a_run_that_goes_on_for_longer_has_its_patience_again(steps, stopped):
    first = descent(validation=Validation(patience=2), ema_decay=0.9)
    first.step()
    first.progress.validations_without_gain = 2
    first._best = {"place": GOAL.clone()}
    snapshot = first.snapshot({"settings": {"steps": "8"}})
    second = descent(steps, validation=Validation(patience=2), ema_decay=0.9)
    second.resume(snapshot)
    assert second.progress.stopped == stopped
    assert second.progress.validations_without_gain == (2 if stopped else 0)
    assert first.progress.validations_without_gain == 2
    assert torch.equal(second.module.place, first.module.place) and torch.equal(second._best["place"], GOAL)
    assert first.step() == second.step()
    torch.testing.assert_close(second._average.values["place"], first._average.values["place"], rtol=0, atol=0)


def test_frozen_weights_are_left_out_and_all_frozen_is_refused():
    module = Bowl()
    module.held = nn.Parameter(torch.ones(2))
    module.held.requires_grad_(False)
    trainer = Trainer(Descent(module), settings=FitSettings(steps=2))
    trainer.start()
    trainer.step()
    assert torch.equal(module.held, torch.ones(2)) and module.place.abs().sum() > 0
    module.place.requires_grad_(False)
    with pytest.raises(ValueError, match="every weight is frozen"):
        Trainer(Descent(module), settings=FitSettings(steps=2))


def test_patience_counts_the_validations_since_the_best_and_its_weights_are_kept():
    settings = FitSettings(steps=9, batch_size=16, validation=Validation(every=1, patience=3))
    objective = Likelihood(
        small_flow(), as_rows(points(64)), settings=settings, augment=None, validation=as_rows(points(8))
    )
    trainer = Trainer(objective, settings=settings)
    figures, counts, best = iter([3.0, 2.0, 2.5, 2.0, 1.0, 1.5, 1.6]), [], []
    objective.validate = lambda: (next(figures), 1)
    trainer.start()
    for _ in range(7):
        trainer.step()
        counts.append(trainer.progress.validations_without_gain)
        best.append(trainer.progress.best_step)
        if trainer.progress.step == 5:
            kept = {name: p.detach().clone() for name, p in trainer.module.named_parameters()}
    assert counts == [0, 0, 1, 2, 0, 1, 2] and best == [1, 2, 2, 2, 5, 5, 5]
    assert trainer.progress.best_nll == 1.0 and not trainer.out_of_patience
    objective.validate = lambda: None
    trainer.finish()
    assert all(torch.equal(p, kept[name]) for name, p in trainer.module.named_parameters())
