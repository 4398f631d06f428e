"""The samplers of references: chains keep a known density, and sequential Monte Carlo finds a known evidence."""

import math

import pytest
import torch

from benchmarks.sampling import chains, move, start, tempered, worst_r_hat

SCALE = torch.tensor([0.2, 3.0], dtype=torch.float64)


def log_normal(z, scale):
    return torch.distributions.Normal(torch.zeros_like(scale), scale).log_prob(z).sum(-1)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("dense", [False, True])
def test_a_move_keeps_the_density(dense):
    z = SCALE * torch.randn(20_000, 2, dtype=torch.float64)
    factor = torch.tensor([[0.3, 0.0], [0.5, 2.0]], dtype=torch.float64) if dense else 0.7 * SCALE
    state = start(lambda z: log_normal(z, SCALE), z)
    for _ in range(3):
        state, rate = move(lambda z: log_normal(z, SCALE), state, factor=factor, size=0.9, leaps=3)
    torch.testing.assert_close(state.z.std(0), SCALE, rtol=0.02, atol=0)
    torch.testing.assert_close(state.value, log_normal(state.z, SCALE))
    assert 0.3 < rate.mean() < 0.99


@pytest.mark.long
def test_chains_from_wrong_starts_agree_on_the_density():
    found = chains(lambda z: log_normal(z, SCALE), torch.randn(32, 2, dtype=torch.float64), warmup=90, draws=100)
    torch.testing.assert_close(found.draws.flatten(0, 1).std(0), SCALE, rtol=0.05, atol=0)
    assert worst_r_hat(found.draws) < 1.02


def test_chains_that_stay_apart_have_a_large_r_hat():
    apart = torch.randn(4, 50, 1) + torch.tensor([0.0, 0.0, 0.0, 5.0])[:, None, None]
    assert worst_r_hat(apart) > 1.5


@pytest.mark.long
def test_sequential_monte_carlo_finds_the_evidence_and_the_posterior():
    noise, target = 0.1, torch.tensor([0.5, -1.0], dtype=torch.float64)
    exact = float(log_normal(target, torch.full_like(target, math.hypot(1.0, noise))))

    def log_likelihood(z):
        return log_normal(target - z, torch.full_like(target, noise))

    draws = torch.randn(2000, 2, dtype=torch.float64)
    found = tempered(lambda z: log_normal(z, torch.ones_like(target)), log_likelihood, draws, share=0.7)
    assert found.log_evidence == pytest.approx(exact, abs=0.1)
    torch.testing.assert_close(found.draws.mean(0), target / (1 + noise**2), atol=0.01, rtol=0)
    torch.testing.assert_close(found.draws.std(0), torch.full_like(target, 0.0995), rtol=0.1, atol=0)
