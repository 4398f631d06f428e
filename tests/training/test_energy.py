"""Fitting to an energy: what it finds, what it reports, what it refuses, and how it is interrupted."""

import math
import os
import signal

import pyro.distributions as dist
import pytest
import torch

from pyro_gflows import EquivariantFlow, InvariantNormal, OrbitMixture, Symmetrized, VectorAction
from pyro_gflows.evaluation import EnergyReport, energy_report
from pyro_gflows.targets import density
from pyro_gflows.training import (
    Adam,
    AlphaMixing,
    FitDiverged,
    FitSettings,
    ForwardKL,
    OneCycle,
    Ramp,
    Validation,
    fit_energy,
)
from pyro_gflows.transforms import GActNorm, g_residual

PLANE = VectorAction.plane("D4")
CORNERS = Symmetrized(dist.Normal(torch.tensor([2.0, 2.0]).double(), 0.5).to_event(1), PLANE)


def small_flow(action=PLANE, *, layers=2, seed=0):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        parts = [GActNorm(action), *(g_residual(action, fast="sample") for _ in range(layers)), GActNorm(action)]
    return EquivariantFlow(InvariantNormal(action), parts).double()


def settings(steps, **options):
    schedule = OneCycle(warmup=0.1, end=0.0)
    return FitSettings(
        **{"steps": steps, "batch_size": 128, "optimizer": Adam(lr=2e-2), "schedule": schedule, **options}
    )


@pytest.mark.long
def test_an_equivariant_flow_learns_four_corners():
    flow = small_flow()
    before = energy_report(flow, CORNERS.log_prob, draws=2000)
    samples = CORNERS.sample((1000,))
    report = fit_energy(flow, CORNERS.log_prob, settings=settings(60), samples=samples, progress=False)
    assert before.ess < 0.1 and report.ess > 0.4 and report.reverse_kl < 2.5
    assert abs(report.log_normalizer) < 0.1
    assert 0 < report.forward_nll + CORNERS.log_prob(samples).mean() < 2.5 and report.forward_nll_error > 0
    assert report.run.steps == 60 and not flow.training
    assert "ESS" in str(report) and "forward NLL" in str(report)


@pytest.mark.long
def test_a_symmetrized_flow_and_an_orbit_mixture_learn_them_too():
    torch.manual_seed(0)
    plain = small_flow(VectorAction.plane("C1"), layers=0)
    with torch.no_grad():
        plain.transforms[-1].shift.copy_(torch.tensor([1.0, 0.5]))  # at 0 all images coincide
    mixture = OrbitMixture(PLANE)
    mixture.module.double()
    for q in (Symmetrized(plain.dist, PLANE), mixture):
        options = settings(120, batch_size=32, optimizer=Adam(lr=0.1))
        report = fit_energy(q, CORNERS.log_prob, settings=options, progress=False)
        assert report.ess > 0.98, report


def test_the_report_of_a_perfect_fit_knows_the_normalizer():
    flow = EquivariantFlow(InvariantNormal(PLANE), [GActNorm(PLANE)]).double()
    report = energy_report(flow, lambda x: -0.5 * x.square().sum(-1) + 3.0, draws=500, samples=flow.dist.sample((50,)))
    assert report.ess == pytest.approx(1) and report.reverse_kl == pytest.approx(0, abs=1e-12)
    assert report.log_normalizer == pytest.approx(3 + math.log(2 * math.pi), abs=1e-12)
    assert report.reverse_nll == pytest.approx(flow.dist.base_dist.entropy().item(), abs=0.2)
    assert report.forward_nll == pytest.approx(report.reverse_nll, abs=0.5)


# -- modes that the reverse divergence drops ---------------------------------------------------------------------------
LINE = VectorAction.from_generators([torch.eye(1, dtype=torch.float64)])
FAR = dist.MixtureSameFamily(
    dist.Categorical(torch.ones(2).double()),
    dist.Normal(torch.tensor([[-3.0], [3.0]]).double(), 0.7).to_event(1),
)


def left_mode(*, steps=50, **options):
    flow = small_flow(LINE)
    with torch.no_grad():
        flow.transforms[-1].shift.fill_(-3.0)
    samples = FAR.sample((200,))
    return fit_energy(
        flow, FAR.log_prob, settings=settings(steps, batch_size=64), samples=samples, progress=False, **options
    )


@pytest.mark.long
def test_forward_nll_shows_the_mode_that_reverse_divergence_drops():
    report = left_mode()
    assert report.ess > 0.95 and report.log_normalizer == pytest.approx(-math.log(2), abs=0.02)
    assert report.forward_nll > 10.0


@pytest.mark.long
@pytest.mark.parametrize(
    "mixing",
    [
        lambda: AlphaMixing(dist.Normal(torch.zeros(1).double(), 4.0).to_event(1)),
        lambda: AlphaMixing(dist.Normal(torch.zeros(1).double(), 4.0).to_event(1), alpha=0.5),
        lambda: ForwardKL(FAR.sample((500,))),
    ],
    ids=["forward, by importance", "alpha 1/2", "forward, given samples"],
)
def test_mixing_finds_it(mixing):
    report = left_mode(mixing=mixing())
    assert report.forward_nll < 5.0 and abs(report.log_normalizer) < 0.1, report


@pytest.mark.long
def test_a_hot_start_finds_it():
    report = left_mode(annealing=Ramp(start=0.02, until=0.6), steps=100)
    assert report.forward_nll < 5.0 and abs(report.log_normalizer) < 0.1, report


# -- the run -----------------------------------------------------------------------------------------------------------
def run(folder=None, *, resume=False, interrupt_at=None, seed=0):
    calls = 0

    def energy(x):
        nonlocal calls
        calls += 1
        if calls == interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return CORNERS.log_prob(x)

    flow = small_flow(layers=1)
    options = settings(12, checkpoint_every=5, ema_decay=0.9, seed=seed, batch_size=16)
    fit_energy(
        flow,
        energy,
        settings=options,
        mixing=ForwardKL(CORNERS.sample((1,)) * 0 + 2),
        annealing=Ramp(start=0.1),
        folder=folder,
        resume=resume,
        progress=False,
    )
    return torch.cat([p.detach().flatten() for p in flow.parameters()])


@pytest.mark.long
def test_the_seed_decides_everything_and_the_callers_generator_is_left_alone():
    torch.manual_seed(7)
    expected = torch.rand(2)
    first = run()
    torch.manual_seed(7)
    torch.rand(1)
    again = run()
    assert torch.equal(first, again) and not torch.equal(first, run(seed=1))
    torch.manual_seed(7)
    fit_energy(small_flow(layers=1), CORNERS.log_prob, settings=settings(2, batch_size=8), progress=False)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.long
def test_ctrl_c_leaves_a_checkpoint_to_resume_from(tmp_path):
    whole = run()
    with pytest.raises(KeyboardInterrupt, match="after step"):
        run(tmp_path, interrupt_at=8)
    assert torch.equal(run(tmp_path, resume=True), whole)


def test_nan_puts_the_weights_back():
    flow = small_flow(layers=1)
    before = [p.detach().clone() for p in flow.parameters()]
    calls = 0

    def energy(x):
        nonlocal calls
        calls += 1
        return CORNERS.log_prob(x) * (float("nan") if calls > 3 else 1.0)

    with pytest.raises(FitDiverged, match="NaN in the log-density"):
        fit_energy(flow, energy, settings=settings(10, batch_size=8), progress=False)
    assert all(torch.equal(p, q) for p, q in zip(flow.parameters(), before, strict=True))


# -- what is refused ---------------------------------------------------------------------------------------------------
def squares(x):
    return -x.square().sum(-1)


@pytest.mark.parametrize(
    ("flow", "energy", "options", "error", "message"),
    [
        (torch.nn.Linear(2, 2), squares, {}, TypeError, "expected an EquivariantFlow"),
        (dist.Normal(torch.zeros(2), 1.0).to_event(1), squares, {}, TypeError, "a distribution with a module"),
        (Symmetrized(InvariantNormal(PLANE), PLANE), squares, {}, ValueError, "weights to fit"),
        (small_flow(), "energy", {}, TypeError, "function of events"),
        (small_flow(), lambda x: 3.0, {}, TypeError, "to return a tensor, got float"),
        (small_flow(), lambda x: squares(x).sum(), {}, ValueError, r"to shape \(3,\), got \(\)"),
        (small_flow(), lambda x: squares(x.detach()), {}, ValueError, "differentiate"),
        (small_flow(), squares, {"samples": torch.zeros(5, 3)}, ValueError, "samples: expected event shape"),
        (small_flow(), squares, {"settings": 100}, TypeError, "FitSettings"),
        (small_flow(), squares, {"settings": FitSettings(validation=Validation(patience=1))}, ValueError, "early stop"),
        (small_flow(), squares, {"resume": True}, ValueError, "folder to resume from"),
    ],
)
def test_what_cannot_be_fitted_is_refused(flow, energy, options, error, message):
    with pytest.raises(error, match=message):
        fit_energy(flow, energy, progress=False, **options)


def test_bad_mixings_and_ramps_are_refused():
    with pytest.raises(TypeError, match="proposal"):
        AlphaMixing(torch.zeros(2))
    with pytest.raises(ValueError, match="alpha"):
        AlphaMixing(CORNERS, alpha=0.0)
    with pytest.raises(TypeError, match="samples"):
        ForwardKL(torch.zeros(2))
    with pytest.raises(ValueError, match="until"):
        Ramp(start=0.1, until=0.0)


def test_a_report_needs_draws():
    with pytest.raises(ValueError, match="at least one draw"):
        energy_report(small_flow(), squares, draws=0)
    assert isinstance(energy_report(small_flow(), density("8gaussians").log_prob, draws=20), EnergyReport)
