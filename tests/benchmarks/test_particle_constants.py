"""Replica exchange and Bennett's ratios against a closed form and quadrature, and the benchmark that uses them."""

import math

import pytest
import torch

from benchmarks.harness import main
from benchmarks.particle_constants import BENCHMARK
from benchmarks.replicas import Replicas, soft_core, weakened
from pyro_gflows.targets import DoubleWell, LennardJones


@pytest.mark.parametrize(
    ("target", "make_path", "scale"),
    [
        (DoubleWell(n=2), lambda target: weakened(target, 2.0), 2.0),
        (LennardJones(n=2), lambda target: soft_core(2, 2.0), 1.0),
    ],
    ids=["double well", "Lennard-Jones"],
)
def test_two_particles_have_the_constants_of_the_quadrature(target, make_path, scale):
    path = make_path(target)
    z = torch.linspace(1e-4, 12, 400_000, dtype=torch.float64)
    shell = {2: 2 * math.pi * z, 3: 4 * math.pi * z.square()}[target.d]
    weights = (-target.pair_energy(2 * z.square())).exp() * shell * (z[1] - z[0])
    log_z = float(weights.sum().log())
    energy = float((weights * target.pair_energy(2 * z.square())).sum() / weights.sum())
    few = Replicas(points=8, burn_in=100, sweeps=400)
    found = few(target, path, scale=scale, generator=torch.Generator().manual_seed(0))
    for name, exact in (("log_z", log_z), ("energy", energy), ("entropy", energy + log_z)):
        assert abs(found[name].value - exact) < 5 * found[name].error < 0.5, name


def test_the_ends_of_the_paths_are_the_gaussian_and_the_target():
    square = torch.linspace(0.5, 40, 50, dtype=torch.float64)
    none, whole = torch.zeros((), dtype=torch.float64), torch.ones((), dtype=torch.float64)
    for target, path, scale in (
        (DoubleWell(n=3), weakened(DoubleWell(n=3), 2.0), 2.0),
        (LennardJones(n=5, pairs="unordered"), soft_core(5, 1.0), 1.0),
    ):
        torch.testing.assert_close(path(square, whole), target.pair_energy(square), rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(path(square, none), square / (2 * target.n * scale**2), rtol=1e-12, atol=0)


@pytest.mark.long
def test_every_row_runs(capsys):
    main(BENCHMARK, ["--quick"])
    out = capsys.readouterr().out
    assert "| lj13-replicas |" in out and "| dw4-smc |" in out and "virial" in out
