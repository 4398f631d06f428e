"""Two moons and SLCP: symmetric likelihoods, densities that integrate to 1, and reference draws that follow them."""

import math

import pytest
import torch
from torch.distributions import MultivariateNormal

from benchmarks.sbibm_tasks import SLCP, TASKS, TWO_MOONS, slcp_exact, two_moons_sloped

each_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@each_task
def test_the_symmetry_leaves_likelihood_and_prior_alone(task):
    action, x = task.action.sites["theta"], task.observation(0)
    theta = task.prior.sample((50,)).double()
    images = action.act_all(theta)
    torch.testing.assert_close(task.sloped(images, x), task.sloped(theta, x).expand(len(images), -1))
    assert task.prior.support.check(images).all()


def test_two_moons_is_a_density_of_the_data():
    theta = torch.tensor([0.3, -0.1], dtype=torch.float64)
    line = torch.linspace(-0.3, 0.3, 1201, dtype=torch.float64)
    center = torch.tensor([0.25 - abs(0.2) / math.sqrt(2), -0.4 / math.sqrt(2)], dtype=torch.float64)
    grid = torch.cartesian_prod(line, line) + center
    # log_likelihood takes one data set at a time, but reads it coordinate by coordinate
    density = TWO_MOONS.log_likelihood(theta, grid.T).exp()
    assert float(density.sum() * (line[1] - line[0]) ** 2) == pytest.approx(1.0, abs=2e-3)


def test_slcp_is_four_draws_of_a_normal():
    theta = torch.tensor([0.3, -1.0, 0.9, -1.4, 0.6], dtype=torch.float64)
    a, b, r = 0.9**2, 1.4**2, math.tanh(0.6)
    normal = MultivariateNormal(theta[:2], torch.tensor([[a * a, r * a * b], [r * a * b, b * b]]).double())
    x = SLCP.observation(3)
    torch.testing.assert_close(SLCP.log_likelihood(theta, x), normal.log_prob(x.reshape(4, 2)).sum())


def test_reference_draws_of_two_moons_are_on_the_moons():
    x = TWO_MOONS.observation(2)
    theta = TWO_MOONS.exact(x, 4000, torch.Generator().manual_seed(0))
    z0, z1 = (theta[:, 0] + theta[:, 1]) / math.sqrt(2), (theta[:, 1] - theta[:, 0]) / math.sqrt(2)
    u, v = x[0] - 0.25 + z0.abs(), x[1] - z1
    r, angle = torch.hypot(u, v), torch.atan2(v, u)
    assert r.mean().item() == pytest.approx(0.1, abs=1e-3) and r.std().item() == pytest.approx(0.01, rel=0.05)
    assert angle.abs().max() < math.pi / 2 and angle.std().item() == pytest.approx(math.pi / math.sqrt(12), rel=0.05)
    assert (z0 > 0).double().mean().item() == pytest.approx(0.5, abs=0.04)


@pytest.mark.long
def test_reference_draws_of_slcp_obey_steins_identity():
    """E[f_k d log p / d theta_k + d f_k / d theta_k] = 0 for every f_k that vanishes on the edges of the box."""
    x = SLCP.observation(3)
    theta = slcp_exact(x, 2000, torch.Generator().manual_seed(0), batch=100_000).requires_grad_()
    (slope,) = torch.autograd.grad(SLCP.log_likelihood(theta, x).sum(), theta)
    for f, derivative in [
        (9 - theta.square(), -2 * theta),
        (theta * (9 - theta.square()), 9 - 3 * theta.square()),
    ]:
        terms = (f * slope + derivative).detach()
        assert (terms.mean(0).abs() < 4 * terms.std(0) / math.sqrt(len(terms))).all()


def test_the_slope_of_two_moons_is_the_likelihood_inside_and_finite_outside():
    theta = TWO_MOONS.prior.sample((500,))
    x = TWO_MOONS.observation(5).float()
    exact, sloped = TWO_MOONS.log_likelihood(theta, x), two_moons_sloped(theta, x)
    torch.testing.assert_close(sloped[exact.isfinite()], exact[exact.isfinite()])
    assert sloped.isfinite().all() and (sloped >= exact).all()
