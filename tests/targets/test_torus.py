"""The densities on the torus: normalization and entropy by quadrature, exact samples, symmetry."""

import math

import pytest
import torch

from pyro_gflows.actions import TorusAction
from pyro_gflows.targets import DENSITIES, TorusDensity, density
from pyro_gflows.testing import assert_invariant

NAMES = sorted(name for name, target in DENSITIES.items() if isinstance(target, TorusDensity))
# log Z of the three published targets
LOG_Z = {"torus-unimodal": 4.147582, "torus-multimodal": 4.147582, "torus-correlated": 3.911668}


def grid(points):
    line = 2 * math.pi * torch.arange(points, dtype=torch.float64) / points
    return torch.cartesian_prod(line, line), (2 * math.pi / points) ** 2


@pytest.mark.parametrize("name", NAMES)
def test_the_floor_and_log_z_by_quadrature(name):
    target = density(name)
    x, cell = grid(200)
    mass = float(target.log_density(x).exp().sum() * cell)
    assert math.log(mass) == pytest.approx(target.log_z, abs=1e-6)
    log_p = target.log_prob(x)
    assert -float((log_p.exp() * log_p).sum() * cell) == pytest.approx(target.floor, abs=2e-6)
    assert target.log_z == pytest.approx(LOG_Z.get(name, target.log_z), abs=1.1e-6)
    torch.testing.assert_close(target.log_prob(x + 2 * math.pi), log_p, rtol=0, atol=1e-11)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_density(name):
    target, count = density(name), 100_000
    x = target.sample(count, torch.Generator().manual_seed(0)).double()
    assert x.shape == (count, 2) and (x >= 0).all() and (x < 2 * math.pi).all()
    assert torch.equal(x.float(), target.sample(count, torch.Generator().manual_seed(0)))
    points, cell = grid(120)
    weights = target.log_prob(points).exp() * cell
    for k in torch.cartesian_prod(torch.arange(-3, 4), torch.arange(-3, 4)).double():
        for wave in (torch.cos, torch.sin):
            assert (wave(x @ k).mean() - (weights * wave(points @ k)).sum()).abs() < 5 / math.sqrt(count)


@pytest.mark.parametrize("name", NAMES)
def test_the_density_has_its_symmetry_and_no_other_rotation(name):
    target = density(name)
    x = target.sample(200, torch.Generator().manual_seed(1)).double()
    assert_invariant(target.log_prob, TorusAction.point_group(target.symmetry), x, tol=1e-10)
    if name == "torus-correlated":
        assert_invariant(target.log_prob, TorusAction.fixing([[1, 1]]), x, tol=1e-10)
    if target.symmetry == "C1":
        with pytest.raises(AssertionError, match="not invariant"):
            assert_invariant(target.log_prob, TorusAction.point_group("C4"), x)
