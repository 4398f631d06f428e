"""Draws by sequential Monte Carlo against quadrature and closed forms; seeds, pools and files."""

import dataclasses
import math

import pytest
import torch

from pyro_gflows.actions import ParticleAction
from pyro_gflows.datasets.clusters import particle_draws
from pyro_gflows.targets import DoubleWell, LennardJones, PairTarget, ParticleEnergy, Pool, SequentialMonteCarlo

QUICK = SequentialMonteCarlo(steps=40, curve=2.0, final_sweeps=40, scale=2.0)
STEEP = SequentialMonteCarlo(steps=100, curve=4.0, final_sweeps=40, scale=1.0)


def run(target, sampler, n=2000, *, seed=0):
    return sampler(target, n, torch.Generator().manual_seed(seed))


def agrees(estimate, exact, *, within):
    """Within five standard errors, which are as small as they should be."""
    return abs(estimate.value - exact) < 5 * estimate.error and estimate.error < within


def exact_pair(target):
    """Log Z, mean energy and distances of two particles by quadrature over |z| = r / sqrt 2, z the one coordinate."""
    z = torch.linspace(1e-4, 12, 400_000, dtype=torch.float64)
    energy = target.pair_energy(2 * z.square())
    shell = {2: 2 * math.pi * z, 3: 4 * math.pi * z.square()}[target.d]
    weights = (-energy).exp() * shell * (z[1] - z[0])
    total = weights.sum()
    weights = weights / total
    return float(total.log()), float((weights * energy).sum()), (math.sqrt(2) * z, weights)


@pytest.mark.parametrize(
    ("target", "sampler"),
    [(DoubleWell(n=2), QUICK), (LennardJones(n=2), STEEP), (LennardJones(n=2, pairs="unordered"), STEEP)],
    ids=["double well", "Lennard-Jones, ordered", "unordered"],
)
def test_two_particles_follow_the_quadrature(target, sampler):
    log_z, energy, (line, weights) = exact_pair(target)
    draws = run(target, sampler, 4000)
    report = draws.report
    assert agrees(report.log_z, log_z, within=0.1) and agrees(report.energy, energy, within=0.15)
    assert agrees(report.entropy, energy + log_z, within=0.15)
    assert report.dimension == target.d and abs(report.virial_deviation) < 5
    r = (draws.x[:, 0] - draws.x[:, 1]).norm(dim=-1).double()
    for power in (1, 2):
        values = r**power
        mean = float((weights * line**power).sum())
        assert abs(float(values.mean()) - mean) < 5 * float(values.std()) / math.sqrt(1000)
    inner = float(weights[line < 4].sum())
    assert abs(float((r < 4).double().mean()) - inner) < 5 * math.sqrt(inner * (1 - inner) / 1000)


class Springs(PairTarget):
    """U = sum over pairs of r^2 = n |x|^2: a Gaussian on configurations with center 0."""

    name = "springs"

    def pair_energy(self, square):
        return square


@pytest.mark.parametrize(
    "target",
    [
        Springs(ParticleAction(3, 2), temperature=2.0),
        ParticleEnergy(ParticleAction(3, 2), lambda x: 3 * x.square().sum((-2, -1)), temperature=2.0),
        ParticleEnergy(ParticleAction(3, 2, center="free"), lambda x: 3 * x.square().sum((-2, -1)), temperature=2.0),
    ],
    ids=["pairs", "function", "free center"],
)
def test_a_gaussian_energy_has_its_closed_form(target):
    dimension, variance = target.space.dimension, 2.0 / 6.0
    log_z = dimension / 2 * math.log(2 * math.pi * variance)
    draws = run(target, dataclasses.replace(QUICK, scale=1.0))
    report = draws.report
    assert dimension == (6 if target.action.center == "free" else 4) == report.dimension
    assert agrees(report.log_z, log_z, within=0.05)
    assert agrees(report.energy, dimension, within=0.1)  # d/2 T
    assert agrees(report.entropy, log_z + dimension / 2, within=0.05)
    assert agrees(report.virial, dimension, within=0.3)
    squares = draws.x.square().sum((-2, -1))
    assert abs(float(squares.mean()) - dimension * variance) < 5 * float(squares.std()) / math.sqrt(1000)
    if target.is_mean_free:
        assert draws.x.mean(-2).abs().max() < 1e-5


def test_resampling_at_every_step_changes_no_mean():
    target = Springs(ParticleAction(3, 2), temperature=2.0)
    often = SequentialMonteCarlo(steps=10, curve=2.0, final_sweeps=20, scale=1.0, resample_below=1.0)
    report = run(target, often, 4000).report
    assert agrees(report.log_z, 2 * math.log(2 * math.pi / 3), within=0.05)
    assert agrees(report.energy, 4.0, within=0.1) and report.smallest_ess > 0.8


def test_estimate_makes_log_prob_known():
    target = ParticleEnergy(ParticleAction(2, 2), lambda x: x.square().sum((-2, -1)) / 2, sampler=QUICK)
    report = target.estimate(1000, torch.Generator().manual_seed(0))
    assert target.log_z == report.log_z.value and target.floor == report.entropy.value
    assert target.log_z_error == report.log_z.error and target.floor_error == report.entropy.error
    x = torch.zeros(1, 2, 2)
    assert abs(float(target.log_prob(x)) + math.log(2 * math.pi)) < 0.1


@pytest.mark.long
def test_four_particles_have_the_known_constants():
    target = DoubleWell()
    report = run(target, dataclasses.replace(target.sampler, steps=150, final_sweeps=150), 4000).report
    assert agrees(report.log_z, target.log_z, within=0.03) and agrees(report.entropy, target.floor, within=0.04)
    assert agrees(report.virial, 6.0, within=0.6)


@pytest.mark.slow
def test_thirteen_particles_have_the_known_constants():
    target = LennardJones()
    report = run(target, dataclasses.replace(target.sampler, steps=300), 2000).report
    assert abs(report.log_z.value - target.log_z) < 5 * math.hypot(report.log_z.error, target.log_z_error)
    assert abs(report.entropy.value - target.floor) < 5 * math.hypot(report.entropy.error, target.floor_error)
    assert abs(report.virial_deviation) < 5 and report.log_z.error < 0.1


def test_the_seed_decides_everything():
    target = DoubleWell(n=2)
    one, again, other = (run(target, QUICK, 50, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(one.x, again.x) and not torch.equal(one.x, other.x)
    assert one.report.log_z == again.report.log_z and one.x.shape == (50, 2, 2)
    generator = torch.Generator().manual_seed(0)
    first, second = (QUICK(target, 50, generator).x for _ in range(2))
    assert torch.equal(first, one.x) and not torch.equal(first, second)


def test_draws_have_the_default_dtype():
    try:
        torch.set_default_dtype(torch.float64)
        draws = run(DoubleWell(n=2), dataclasses.replace(QUICK, steps=5, final_sweeps=1), 10)
    finally:
        torch.set_default_dtype(torch.float32)
    assert draws.x.dtype == torch.float64


def test_the_report_prints_its_checks():
    text = str(run(DoubleWell(n=2), QUICK))
    for part in ("log Z", "entropy", "virial", "exactly 2", "standard errors", "2000 draws of DoubleWell(n=2"):
        assert part in text


def test_a_call_draws_from_the_pool_and_sample_draws_anew():
    target = DoubleWell(n=2, pool=Pool(size=300, seed=5, progress=False))
    target.sampler = dataclasses.replace(QUICK, steps=10, final_sweeps=5)
    batch = target(64, torch.Generator().manual_seed(0))
    assert torch.equal(batch, target(64, torch.Generator().manual_seed(0))) and batch.shape == (64, 2, 2)
    assert torch.equal(target.pooled().x, run(target, target.sampler, 300, seed=5).x)
    inside = (batch[:, None] == target.pooled().x).all((-2, -1)).any(-1)
    assert inside.all() and len(target.pooled().x) == 300
    fresh = target.sample(64, torch.Generator().manual_seed(0))
    assert not (fresh[:, None] == target.pooled().x).all((-2, -1)).any()


def test_targets_of_one_name_are_kept_in_files_of_their_own(tmp_path):
    """Two functions without a name, and a well of another number of particles."""
    quick, pool = SequentialMonteCarlo(steps=2, final_sweeps=1), Pool(1000, progress=False)
    action = ParticleAction(3, 2)
    soft, hard = (
        ParticleEnergy(action, lambda x, k=k: k * x.square().sum((-2, -1)), sampler=quick, pool=pool) for k in (1, 2)
    )
    wells = [DoubleWell(n, pool=pool) for n in (3, 4)]
    for target in (soft, hard, *wells):
        target.sampler, target.test_points = quick, 1000
        first, again = (particle_draws(target, folder=tmp_path, progress=False) for _ in range(2))
        assert torch.equal(first.test, again.test) and torch.equal(first.train, again.train)
        assert not torch.equal(first.test[-900:], first.train)
    with pytest.raises(ValueError, match="not that of the pool, 0"):
        particle_draws(soft, seed=0, folder=tmp_path, progress=False)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 8 and not set("".join(names)) & set("<>:./").difference(".")


def test_draws_are_kept_in_a_file_and_other_settings_are_refused(tmp_path):
    target, path = DoubleWell(n=2), tmp_path / "new" / "draws.safetensors"
    quick = dataclasses.replace(QUICK, steps=10, final_sweeps=5)

    def again(target=target, sampler=quick, n=100, seed=0):
        return sampler(target, n, torch.Generator().manual_seed(seed), cache=path)

    made = again()
    found = again()
    assert torch.equal(made.x, found.x) and made.report == found.report  # the seconds too: nothing was drawn
    for other, message in [
        ({"target": DoubleWell(n=3)}, "target is .*S2 x O.*, not .*S3 x O"),
        ({"target": ParticleEnergy(target.action, target.energy)}, "another run: target is"),
        ({"sampler": QUICK}, "sampler is .*'steps': 10.*, not .*'steps': 40"),
        ({"n": 50}, "draws is 100, not 50"),
        ({"seed": 1}, "random_state is"),
    ]:
        with pytest.raises(ValueError, match=message):
            again(**other)
    one, two = (ParticleEnergy(target.action, function) for function in (_energy(1.0), _energy(2.0)))
    path.unlink()
    again(one)
    with pytest.raises(ValueError, match="energies is"):  # functions of one name
        again(two)
    path.write_bytes(b"something else")
    with pytest.raises(ValueError, match="truncated or damaged"):
        again()


def _energy(factor):
    def energy(x):
        return factor * x.square().sum((-2, -1))

    return energy
