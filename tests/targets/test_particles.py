"""Energies of particles against double loops, their symmetry and safety, and densities that they define."""

import math

import pytest
import torch

from pyro_gflows.actions import ParticleAction
from pyro_gflows.spaces import Euclidean, MeanFree
from pyro_gflows.targets import (
    DoubleWell,
    LennardJones,
    PairTarget,
    ParticleEnergy,
    Pool,
    SequentialMonteCarlo,
    SoftenedDensity,
    known_log_z,
    log_density_of,
    on_full_plates,
    soften,
)
from pyro_gflows.testing import assert_invariant

TARGETS = [DoubleWell(), DoubleWell(n=3), LennardJones(n=5), LennardJones(pairs="unordered")]


def configurations(target, count=5, *, seed=0):
    x = torch.randn(count, target.n, target.d, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return target.space.project(1.5 * x)


def double_well(x):
    total = 0.0
    for i in range(len(x)):
        for j in range(i):
            r = math.dist(x[i], x[j])
            total += 0.9 * (r - 4) ** 4 - 4 * (r - 4) ** 2
    return total


def lennard_jones(x, *, ordered):
    total = sum(0.5 * (c - sum(column) / len(column)) ** 2 for column in zip(*x, strict=True) for c in column)
    for i in range(len(x)):
        for j in range(len(x)):
            if i != j and (ordered or j < i):
                r = math.dist(x[i], x[j])
                total += r**-12 - 2 * r**-6
    return total


def test_the_double_well_is_the_sum_over_pairs():
    x = configurations(DoubleWell())
    expected = [double_well(one) for one in x.tolist()]
    torch.testing.assert_close(DoubleWell().energy(x), x.new_tensor(expected), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("pairs", ["ordered", "unordered"])
def test_the_lennard_jones_energy_is_the_sum_over_ordered_or_unordered_pairs_with_a_trap(pairs):
    target = LennardJones(pairs=pairs)
    x = configurations(target)
    expected = [lennard_jones(one, ordered=pairs == "ordered") for one in x.tolist()]
    torch.testing.assert_close(target.energy(x), x.new_tensor(expected), rtol=1e-11, atol=1e-11)


def test_the_conventions_are_in_what_is_printed():
    assert "2 sum over i<j of (r^-12 - 2 r^-6)" in repr(LennardJones()) and "log Z" in repr(LennardJones())
    unordered = repr(LennardJones(pairs="unordered"))
    assert "U = 1 sum over i<j" in unordered and "log Z" not in unordered
    assert "0.9 (r - 4)^4 - 4 (r - 4)^2" in repr(DoubleWell()) and "log Z 29.66" in repr(DoubleWell())


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_energies_have_the_symmetry_and_the_gradient_of_finite_differences(target):
    x = configurations(target, 20)
    assert target.space == MeanFree(target.n, target.d) and target.event_shape == (target.n, target.d)
    assert target.symmetry == str(target.action.group) == f"S{target.n} x O({target.d})"
    scale = 1 + float(target.energy(x).abs().max())
    assert_invariant(lambda x: target.energy(x) / scale, target.action, x, tol=1e-12)
    shifted = target.energy(x + torch.tensor([0.3, -0.7, 2.0][: target.d]).double())
    torch.testing.assert_close(shifted, target.energy(x), rtol=1e-10, atol=1e-10)
    one = configurations(target, 1, seed=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: target.energy(x) / scale, one, eps=1e-7, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("distance", [0.0, 1e-30, 1e-10, 1e-3, 0.05, 0.099, 0.2])
@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_close_particles_have_finite_energies_and_gradients_that_repel(target, distance, dtype):
    x = configurations(target, 1).to(dtype)
    x[0, 1] = x[0, 0]
    x[0, 1, 0] += distance
    x = x.requires_grad_()
    energy = target.energy(x)
    (slope,) = torch.autograd.grad(energy.sum(), x)
    assert energy.isfinite().all() and slope.isfinite().all()
    apart = (x[0, 1] - x[0, 0]).detach()
    force = (slope[0, 0] - slope[0, 1]).dot(apart)  # the work of moving them apart
    if distance > 1e-6:
        assert force > 0
    assert target.softened(above=30.0)(x.detach()).isfinite().all()


def test_the_core_of_the_lennard_jones_energy_joins_it_with_its_slope():
    target = LennardJones(n=2, pairs="unordered")
    squares = (target.core**2 * torch.tensor([1 - 1e-9, 1 + 1e-9]).double()).requires_grad_()
    energies = target.pair_energy(squares)
    (slopes,) = torch.autograd.grad(energies.sum(), squares)
    torch.testing.assert_close(energies[0], energies[1], rtol=1e-7, atol=0)
    torch.testing.assert_close(slopes[0], slopes[1], rtol=1e-7, atol=0)
    assert energies.detach().min() > 9e11


@pytest.mark.parametrize("target", TARGETS, ids=repr)
def test_what_the_sampler_reads_agrees_with_the_energy(target):
    x = configurations(target, 7)
    moved = x.clone()
    shift = torch.randn(7, target.d, generator=torch.Generator().manual_seed(1)).double()
    moved[:, 1] += shift
    layout = x.permute(1, 2, 0).contiguous()
    torch.testing.assert_close(target.chain_energies(layout), target.energy(x), rtol=1e-11, atol=1e-11)
    expected = target.energy(target.space.project(moved)) - target.energy(x)
    torch.testing.assert_close(target.chain_changes(layout, 1, shift.T), expected, rtol=1e-9, atol=1e-9)
    plain = ParticleEnergy(target.action, target.energy)
    torch.testing.assert_close(plain.chain_changes(layout, 1, shift.T), expected, rtol=1e-9, atol=1e-9)


def test_log_densities_have_the_temperature_and_the_constant():
    action = ParticleAction(3, 2)
    target = ParticleEnergy(action, lambda x: x.square().sum((-2, -1)), temperature=0.5)
    x = configurations(target)
    torch.testing.assert_close(target.log_density(x), -2 * x.square().sum((-2, -1)), rtol=0, atol=1e-12)
    with pytest.raises(ValueError, match=r"log Z .* is not known: use log_density.*estimate"):
        target.log_prob(x)
    known = DoubleWell()
    x = configurations(known)
    torch.testing.assert_close(known.log_prob(x), -known.energy(x) - known.log_z, rtol=0, atol=1e-12)
    assert known_log_z(known) == known_log_z(known.log_density) == known_log_z(known.softened(above=9.0)) == known.log_z
    assert known_log_z(known.log_prob) == 0.0 and known_log_z(target) is None and known_log_z(known.energy) is None
    assert log_density_of(known) == known.log_density


def test_a_user_energy_of_all_configurations_with_a_free_center():
    target = ParticleEnergy(ParticleAction((1, 2), 2, center="free"), lambda x: x.square().sum((-2, -1)))
    assert target.space == Euclidean((3, 2)) and not target.is_mean_free
    layout = torch.randn(3, 2, 4, generator=torch.Generator().manual_seed(0))
    shift = torch.ones(2, 4)
    moved = layout.clone()
    moved[2] += 1
    torch.testing.assert_close(
        target.chain_changes(layout, 2, shift), (moved.square() - layout.square()).sum((0, 1)), rtol=1e-5, atol=1e-5
    )


def test_softening_is_smooth_and_changes_nothing_below():
    energy = torch.linspace(-5, 50, 200, dtype=torch.float64).requires_grad_()
    value = soften(energy, 10.0, width=2.0)
    (slope,) = torch.autograd.grad(value.sum(), energy)
    below = energy < 10
    assert torch.equal(value[below], energy[below])
    expected = 10 + 2 * torch.log1p((energy[~below] - 10) / 2)
    torch.testing.assert_close(value[~below], expected, rtol=0, atol=1e-12)
    torch.testing.assert_close(slope, torch.where(below, 1.0, 1 / (1 + (energy - 10) / 2)), rtol=1e-12, atol=0)


def test_a_softened_density_is_trained_on_soft_pairs_and_weighted_without_it():
    target = LennardJones(n=5)
    x = configurations(target, 50)
    apart = target.space.project((torch.arange(15, dtype=torch.float64) / 2).reshape(1, 5, 3))
    plain = SoftenedDensity(lambda x: target.log_density(x), above=20.0)
    for soft in (target.softened(above=20.0), SoftenedDensity(target, above=20.0), plain):
        assert (soft(x) - soft.on_full_plates(x)).abs().max() > 100
    soft = target.softened(above=20.0)
    torch.testing.assert_close(on_full_plates(soft)(x), target.log_density(x), rtol=0, atol=0)
    torch.testing.assert_close(soft(apart), target.log_density(apart), rtol=1e-12, atol=1e-12)
    squares = (x[:, :, None] - x[:, None]).square().sum(-1)
    pairs = torch.stack([target.pair_energy(squares[:, i, j]) for i in range(5) for j in range(i)])
    torch.testing.assert_close(soft(x), -soften(pairs, 20.0).sum(0), rtol=1e-12, atol=1e-12)
    assert "LennardJones" in repr(soft) and "above=20" in repr(soft)


class FreeSprings(PairTarget):
    name = "springs"

    def pair_energy(self, square):
        return square


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: DoubleWell(n=1), ValueError, "at least 2 particles"),
        (lambda: LennardJones(pairs="all"), ValueError, "ordered.*factor 2.*unordered"),
        (lambda: ParticleEnergy(4, lambda x: x), TypeError, r"ParticleAction\(n, d\), got int"),
        (lambda: ParticleEnergy(ParticleAction(3, 2), lambda x: x, temperature=0), ValueError, "positive temperature"),
        (
            lambda: ParticleEnergy(ParticleAction(3, 2), lambda x: x.sum()).energy(torch.zeros(5, 3, 2)),
            ValueError,
            "not over the batch",
        ),
        (lambda: type("Both", (PairTarget,), {"energy": None}), TypeError, "Both to write pair_energy alone"),
        (lambda: FreeSprings(ParticleAction(3, 2, center="free")), ValueError, "center='mean-free', as an energy of"),
        (lambda: Pool(size=0), ValueError, "at least one"),
        (lambda: soften(torch.zeros(2), math.inf), ValueError, "finite energy"),
        (lambda: SoftenedDensity(DoubleWell(), above=1.0, width=0.0), ValueError, "positive width"),
        (lambda: SequentialMonteCarlo(steps=0), ValueError, "at least one step"),
        (lambda: SequentialMonteCarlo(curve=0.5), ValueError, "curve >= 1"),
        (lambda: SequentialMonteCarlo()(DoubleWell(), 0), ValueError, "at least one draw"),
    ],
)
def test_bad_arguments_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
