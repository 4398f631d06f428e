"""Flows of particles fitted to draws and to energies: annealed, softened at close distances, reported exactly."""

import dataclasses

import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantNormal
from pyro_gflows.evaluation import energy_report
from pyro_gflows.targets import DoubleWell, LennardJones, Pool, SequentialMonteCarlo
from pyro_gflows.testing import assert_above_floor
from pyro_gflows.training import Adam, FitSettings, OneCycle, Ramp, fit, fit_energy
from pyro_gflows.transforms import GActNorm, InCoordinates, g_radial

QUICK = SequentialMonteCarlo(steps=60, final_sweeps=40, scale=2.0)


def particle_flow(action, *, seed=0):
    """The radial layers can become any density of two particles that is invariant under rotations."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [GActNorm(action.coordinates), g_radial(action.coordinates), GActNorm(action.coordinates)]
        return EquivariantFlow(InvariantNormal(action), [InCoordinates(layer, action) for layer in layers])


def settings(steps, *, lr=2e-2):
    return FitSettings(steps, batch_size=128, optimizer=Adam(lr=lr), schedule=OneCycle(warmup=0.1, end=0.0))


@pytest.mark.long
def test_an_energy_is_fitted_with_softened_pairs_and_an_annealed_temperature():
    target = DoubleWell(n=2)
    target.sampler = QUICK
    target.estimate(4000, torch.Generator().manual_seed(0))
    samples = target.sample(1000, torch.Generator().manual_seed(1))
    flow = particle_flow(target.action)
    before = energy_report(flow, target, draws=2000, samples=samples)
    options = {"annealing": Ramp(start=0.5, until=0.3), "samples": samples, "progress": False}
    report = fit_energy(flow, target.softened(above=50.0), settings=settings(200, lr=0.1), **options)
    assert report.ess > 0.8 and report.forward_ess > 0.8 > 5 * before.forward_ess and report.gap < before.gap - 1
    assert report.known_log_normalizer == target.log_z and report.run.steps == 200
    assert abs(report.log_normalizer - target.log_z) < 0.1 and not report.is_below_floor
    assert_above_floor(report.forward_nll, target.floor, error=report.forward_nll_error, floor_error=target.floor_error)


def test_a_report_on_a_softened_energy_is_that_of_the_exact_one():
    target = LennardJones(n=4)
    flow = particle_flow(target.action)
    soft = target.softened(above=5.0)
    exact, found = (energy_report(flow, density, draws=500) for density in (target, soft))
    wrong = energy_report(flow, lambda x: soft(x), draws=500)
    assert found == exact and abs(wrong.reverse_loss - exact.reverse_loss) > 100
    fitted = fit_energy(flow, soft, settings=settings(1), progress=False)
    assert fitted.importance == energy_report(flow, target).importance


def test_training_follows_the_softened_energy():
    """Where particles overlap, its gradient is bounded while that of the exact energy is huge."""
    target = LennardJones(n=4)
    flow = particle_flow(target.action)
    losses = {}
    for name, density in (("exact", target), ("soft", target.softened(above=5.0))):
        copy = particle_flow(target.action)
        copy.load_state_dict(flow.state_dict())
        report = fit_energy(copy, density, settings=settings(1), progress=False)
        losses[name] = report.run.train_curve[0][1]
    assert losses["soft"] < 100 < losses["exact"]


@pytest.mark.long
def test_draws_are_fitted_from_the_pool():
    target = DoubleWell(n=2, pool=Pool(size=2000, progress=False))
    target.sampler = QUICK
    report = target.estimate(4000, torch.Generator().manual_seed(1))
    flow = particle_flow(target.action)
    test = target.sample(2000, torch.Generator().manual_seed(2))
    before = energy_report(flow, target, draws=1000, samples=test)
    fit(flow, target, settings=settings(150), progress=False)
    after = energy_report(flow, target, draws=1000, samples=test)
    assert after.gap < before.gap - 1 and not after.is_below_floor
    assert_above_floor(after.forward_nll, target.floor, error=after.forward_nll_error, floor_error=report.entropy.error)


def test_a_fit_to_a_pool_can_be_resumed(tmp_path):
    target = DoubleWell(n=2, pool=Pool(size=200, progress=False))
    target.sampler = dataclasses.replace(QUICK, steps=5, final_sweeps=1)
    twice = dataclasses.replace(settings(6), schedule=OneCycle())
    whole, parts = particle_flow(target.action), particle_flow(target.action)
    fit(whole, target, settings=twice, progress=False)
    fit(parts, target, settings=dataclasses.replace(twice, steps=3), folder=tmp_path, progress=False)
    resumed = fit(parts, target, settings=twice, folder=tmp_path, resume=True, progress=False)
    assert resumed.steps == 6 and len(target.pooled().x) == 200
