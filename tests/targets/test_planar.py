import math

import pytest
import torch

from pyro_gflows.spaces import Euclidean
from pyro_gflows.targets import DENSITIES, density

NAMES = sorted(name for name, target in DENSITIES.items() if isinstance(target.space, Euclidean))
# Cells of the quadrature line up with those of the checkerboard.
SIDE, CELLS = 6.0, 1200


def image(x, angle, *, reflected=False):
    """Return x after a reflection in the first axis, on request, and a rotation."""
    c, s = math.cos(angle), math.sin(angle)
    signs = torch.tensor([1.0, -1.0 if reflected else 1.0], dtype=x.dtype)
    return (x * signs) @ torch.tensor([[c, s], [-s, c]], dtype=x.dtype)


SYMMETRIES = {
    "8gaussians": [(math.pi / 4, False), (0.0, True)],
    "rings": [(1.234, False), (0.0, True)],
    "checkerboard": [(math.pi, False)],
}


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.long
def test_the_floor_is_the_entropy_and_the_density_integrates_to_one(name):
    target = density(name)
    line = (torch.arange(CELLS, dtype=torch.float64) + 0.5) / CELLS * 2 * SIDE - SIDE
    mass = entropy = 0.0
    for column in line.split(100):
        log_p = target.log_prob(torch.cartesian_prod(column, line))
        p = log_p.exp()
        mass += float(p.sum())
        entropy -= float(torch.where(p > 0, p * log_p, torch.zeros_like(p)).sum())
    cell = (2 * SIDE / CELLS) ** 2
    assert mass * cell == pytest.approx(1.0, abs=1e-6)
    assert entropy * cell == pytest.approx(target.floor, abs=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_samples_follow_the_density(name):
    target = density(name)
    x = target.sample(200_000, torch.Generator().manual_seed(0)).double()
    log_p = target.log_prob(x)
    assert x.shape == (200_000, 2)
    assert -float(log_p.mean()) == pytest.approx(target.floor, abs=4 * float(log_p.std()) / 200_000**0.5 + 1e-9)
    assert float(x.mean(0).abs().max()) < 0.03
    assert float(x.square().mean()) ** 0.5 == pytest.approx(target.data_sd, rel=0.01)


@pytest.mark.parametrize("name", NAMES)
def test_the_density_is_invariant_under_its_symmetry(name):
    target = density(name)
    x = target.sample(1000, torch.Generator().manual_seed(1)).double()
    for angle, reflected in SYMMETRIES[name]:
        error = target.log_prob(image(x, angle, reflected=reflected)) - target.log_prob(x)
        assert float(error.abs().max()) < 1e-10


@pytest.mark.parametrize("name", NAMES)
def test_the_same_seed_draws_the_same_points(name):
    draws = [density(name)(5, torch.Generator().manual_seed(3)) for _ in range(2)]
    assert torch.equal(*draws)


def test_rings_are_finite_with_finite_gradients_far_away_and_at_the_origin():
    x = torch.tensor([[0.0, 0.0], [50.0, 0.0], [1e-12, 0.0]], dtype=torch.float64, requires_grad=True)
    log_p = density("rings").log_prob(x)
    log_p.sum().backward()
    assert log_p.isfinite().all()
    assert x.grad is not None and x.grad.isfinite().all()


def test_eight_gaussians_agree_with_an_independent_mixture():
    target = density("8gaussians")
    x = torch.randn(100, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    angles = torch.arange(8, dtype=torch.float64) * math.pi / 4
    centers = 4 / 1.414 * torch.stack([angles.cos(), angles.sin()], -1)
    mixture = torch.distributions.MixtureSameFamily(
        torch.distributions.Categorical(torch.ones(8, dtype=torch.float64)),
        torch.distributions.Independent(torch.distributions.Normal(centers, 0.5 / 1.414), 1),
    )
    assert torch.allclose(target.log_prob(x), mixture.log_prob(x), atol=1e-12)


def test_an_unknown_name_lists_the_names_and_the_nearest():
    with pytest.raises(ValueError, match=r"'ring'.*checkerboard.*did you mean 'rings'"):
        density("ring")
