"""Functions that are called after every step, and runs that go on after their end."""

import itertools

import numpy as np
import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, OrbitMixture, VectorAction
from pyro_gflows.evaluation import nll
from pyro_gflows.serialization.files import read_tensors
from pyro_gflows.training import FitSettings, ForwardKL, OneCycle, Validation, fit, fit_energy
from pyro_gflows.training.checkpoint import CHECKPOINT
from tests.small_flows import points, small_flow

pytestmark = pytest.mark.usefixtures("on_both_engines")

ACTION = VectorAction.plane("D4")


def plain_flow():
    return EquivariantFlow(InvariantNormal(ACTION), [GActNorm(ACTION)]).double()


def squares(x):
    return -2 * x.square().sum(-1)


def likelihood(flow, steps, **options):
    settings = FitSettings(steps=steps, batch_size=64, validation=Validation(4), checkpoint_every=3)
    return fit(flow, points(), validation=points(50, seed=1), settings=settings, progress=False, **options)


def energy(flow, steps, **options):
    settings = FitSettings(steps=steps, batch_size=64, checkpoint_every=3)
    return fit_energy(flow, squares, settings=settings, progress=False, **options).run


def weights(flow):
    return torch.cat([p.detach().flatten().clone() for p in getattr(flow, "module", flow).parameters()])


@pytest.mark.parametrize("train", [likelihood, energy])
def test_a_callback_sees_step_losses_and_flow_after_every_step(train):
    flow, seen = plain_flow(), []
    result = train(flow, 9, callbacks=lambda step, losses, it: seen.append((step, losses, it is flow, weights(it))))
    assert [step for step, *_ in seen] == list(range(1, 10)) and all(same for _, _, same, _ in seen)
    assert [(step, losses["train"]) for step, losses, *_ in seen] == result.train_curve
    validation = [(step, losses["validation"]) for step, losses, *_ in seen if "validation" in losses]
    assert validation == result.validation_curve
    assert all(not torch.equal(a[3], b[3]) for a, b in itertools.pairwise(seen))


def test_of_a_distribution_the_callback_sees_the_distribution():
    mixture, seen = OrbitMixture(ACTION), []
    mixture.module.double()
    energy(mixture, 2, callbacks=lambda step, losses, it: seen.append(it is mixture))
    assert seen == [True, True]


@pytest.mark.parametrize("train", [likelihood, energy])
@pytest.mark.parametrize("answer", [True, np.bool_(True), torch.tensor(True)])
def test_true_stops_the_run_and_it_can_go_on(train, answer, tmp_path):
    whole = plain_flow()
    train(whole, 9)
    flow, calls = plain_flow(), []
    callbacks = [lambda step, losses, it: answer if step == 5 else False, lambda step, losses, it: calls.append(step)]
    result = train(flow, 9, callbacks=callbacks, folder=tmp_path)
    assert result.steps == 5 and result.stopped_early and not flow.training
    assert calls == [1, 2, 3, 4, 5]  # all of them are called, also after one that stops
    assert train(flow, 9, folder=tmp_path, resume=True).steps == 9
    assert torch.equal(weights(flow), weights(whole))


@pytest.mark.parametrize("train", [likelihood, energy])
@pytest.mark.long
def test_a_callback_that_draws_or_evaluates_leaves_the_run_as_it_is(train):
    def busy(step, losses, flow):
        torch.rand(step)
        with torch.no_grad():
            flow.dist.sample((3,))
        nll(flow, points(10))
        flow.eval()

    plain, watched = small_flow(), small_flow()
    if train is energy:
        plain, watched = plain_flow(), plain_flow()
    train(plain, 6)
    train(watched, 6, callbacks=busy)
    assert torch.equal(weights(plain), weights(watched))


def test_an_error_in_a_callback_is_the_users_and_answers_are_checked():
    def fails(step, losses, flow):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        likelihood(plain_flow(), 3, callbacks=fails)
    with pytest.raises(TypeError, match="return None, or True to stop the run, got float"):
        likelihood(plain_flow(), 3, callbacks=lambda step, losses, flow: losses["train"])
    with pytest.raises(TypeError, match=r"functions f\(step, losses, flow\), got str"):
        likelihood(plain_flow(), 3, callbacks=["print"])


# -- more steps --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("train", [likelihood, energy])
@pytest.mark.long
def test_a_finished_run_goes_on_and_may_be_broken_again(train, tmp_path):
    flow = plain_flow()
    train(flow, 6, folder=tmp_path / "whole")
    before = weights(flow)
    rates = []
    result = train(flow, 14, folder=tmp_path / "whole", resume=True, callbacks=lambda *seen: rates.append(seen[0]))
    assert result.steps == 14 and rates == list(range(7, 15)) and not torch.equal(weights(flow), before)
    whole = weights(flow)

    def fails(step, losses, flow):
        if step == 11:
            raise ZeroDivisionError

    train(flow, 6, folder=tmp_path / "broken")
    flow = plain_flow()
    train(flow, 6, folder=tmp_path / "broken")
    with pytest.raises(ZeroDivisionError):
        train(plain_flow(), 14, folder=tmp_path / "broken", resume=True, callbacks=fails)
    flow = plain_flow()
    assert train(flow, 14, folder=tmp_path / "broken", resume=True).steps == 14
    assert torch.equal(weights(flow), whole)


def test_the_schedule_of_a_longer_run_is_read_over_all_its_steps(tmp_path):
    """With a constant rate a run that goes on is the longer run; else each step has the rate of the longer run."""
    seen = []

    class Rates(OneCycle):
        def __call__(self, done):
            seen.append(done)
            return 1.0

    def go(steps, **options):
        flow = plain_flow()
        settings = FitSettings(steps=steps, batch_size=64, schedule=Rates())
        fit(flow, points(), settings=settings, progress=False, **options)
        return weights(flow)

    longer = go(8)
    go(5, folder=tmp_path)
    seen.clear()
    assert torch.equal(go(8, folder=tmp_path, resume=True), longer)
    assert seen == [5 / 8, 6 / 8, 7 / 8]


def test_a_run_that_ran_out_of_patience_goes_on_with_new_patience(tmp_path):
    def go(steps, **options):
        validation = Validation(every=1, patience=3)
        settings = FitSettings(steps=steps, batch_size=16, validation=validation)
        flow = plain_flow()
        return fit(
            flow,
            points(16),
            validation=points(200, seed=1),
            settings=settings,
            folder=tmp_path,
            progress=False,
            **options,
        )

    first = go(300)
    assert first.stopped_early
    again = go(300, resume=True)
    assert again.steps == first.steps and again.stopped_early
    more = go(first.steps + 2, resume=True)
    assert more.steps == first.steps + 2
    assert more.validation_nll <= first.validation_nll


def test_which_runs_do_not_go_on(tmp_path):
    def fails(step, losses, flow):
        if step == 5:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        likelihood(plain_flow(), 9, folder=tmp_path, callbacks=fails)
    before = (tmp_path / CHECKPOINT).read_bytes()
    for steps in (20, 7):
        with pytest.raises(ValueError, match=r"interrupted after step 3; resume it with steps=9 first"):
            likelihood(plain_flow(), steps, folder=tmp_path, resume=True)
    likelihood(plain_flow(), 9, folder=tmp_path, resume=True)
    assert (tmp_path / CHECKPOINT).read_bytes() != before
    for steps in (8, 2):
        with pytest.raises(ValueError, match=rf"9 steps are done already, received steps={steps}"):
            likelihood(plain_flow(), steps, folder=tmp_path, resume=True)
    assert read_tensors(tmp_path / CHECKPOINT)[1]["progress"]["step"] == 9


def test_mixing_sees_the_longer_run_too(tmp_path):
    samples = torch.full((4, 2), 2.0, dtype=torch.float64)
    for steps, resume in ((4, False), (6, True)):
        run = energy(plain_flow(), steps, folder=tmp_path, resume=resume, mixing=ForwardKL(samples))
        assert run.steps == steps
