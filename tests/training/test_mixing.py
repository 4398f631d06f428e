"""The second losses of a fit to an energy, against their formulas written out."""

import math

import pyro.distributions as dist
import pytest
import torch
from torch import nn

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
from pyro_gflows.flows.learnable import learnable
from pyro_gflows.training import AlphaMixing, Energy, FitSettings, ForwardKL, OwnDraws, reverse_kl_loss
from pyro_gflows.training.own_draws import bearable_power
from tests.training.test_own_draws import normal

WIDE = dist.Normal(torch.zeros(2, dtype=torch.float64), 3.0).to_event(1)
POINT = torch.tensor([1.0, -0.5], dtype=torch.float64)


def target(x):
    """Up to a constant, which must not count."""
    return -2 * (x - POINT).square().sum(-1) + 5.0


def log_normal(x, mean, sd):
    return (-0.5 * ((x - mean) / sd).square() - math.log(sd) - 0.5 * math.log(2 * math.pi)).sum(-1)


@pytest.mark.parametrize("alpha", [1.0, 0.7, 0.3, 1e-6])
@pytest.mark.parametrize("draws", [400, 401])
def test_alpha_evens_the_weights_out(alpha, draws):
    mean = nn.Parameter(torch.tensor([0.3, 0.1], dtype=torch.float64))
    q = dist.Normal(mean, 1.2).to_event(1)
    torch.manual_seed(3)
    loss = AlphaMixing(WIDE, alpha=alpha).loss(q, target, draws)
    loss.backward()
    torch.manual_seed(3)
    with torch.no_grad():
        x = torch.cat([q.sample((draws - draws // 2,)), WIDE.sample((draws // 2,))])
        log_q, log_r = log_normal(x, mean, 1.2), log_normal(x, 0.0, 3.0)
        ratio = target(x).exp() / (0.5 * log_q.exp() + 0.5 * log_r.exp())
        weights = ratio**alpha / (ratio**alpha).sum()
        gradient = -(weights[:, None] * (x - mean) / 1.2**2).sum(0)
    assert loss.item() == pytest.approx(-(weights * log_q).sum().item(), rel=1e-10)
    torch.testing.assert_close(mean.grad, gradient, atol=1e-10, rtol=1e-10)
    if alpha < 1e-3:  # no weights at all
        assert loss.item() == pytest.approx(-log_q.mean().item(), rel=1e-4)


def test_alpha_decides_where_a_fit_goes():
    """The spread of a normal about the target's mean: the target's own for alpha 1, and wider for less."""
    spreads = {}
    for alpha in (1.0, 0.2):
        log_spread = nn.Parameter(torch.zeros((), dtype=torch.float64))
        optimizer = torch.optim.SGD([log_spread], lr=0.2)
        torch.manual_seed(0)
        for _ in range(60):
            optimizer.zero_grad()
            q = dist.Normal(POINT, log_spread.exp()).to_event(1)
            AlphaMixing(WIDE, alpha=alpha).loss(q, target, 2000).backward()
            optimizer.step()
        spreads[alpha] = log_spread.exp().item()
    assert spreads[1.0] == pytest.approx(0.5, rel=0.05)
    assert spreads[0.2] > 0.6


def test_given_samples_count_each_alike():
    mean = nn.Parameter(torch.zeros(2, dtype=torch.float64))
    q = dist.Normal(mean, 1.0).to_event(1)
    samples = torch.randn(50, 2, dtype=torch.float64) + POINT
    losses = torch.stack([ForwardKL(samples).loss(q, target, 500).detach() for _ in range(40)])
    expected = -log_normal(samples, 0.0, 1.0).mean()
    assert abs(losses.mean() - expected) < 4 * losses.std() / math.sqrt(40)


@pytest.mark.parametrize("sd", [0.05, 0.3, 0.9])
def test_own_draws_are_of_the_tempered_target(sd):
    """From q = N(0, 1) and log p that of N(0, sd^2), weights to the power beta give the normal law of precision
    1 - beta + beta / sd^2: what is drawn has its spread, and the pool the effective size that was asked for."""
    sampler = OwnDraws(normal(), lambda x: -0.5 * (x / sd).square().sum(-1), pool=40_000, ess=0.3)
    torch.manual_seed(0)
    x = sampler(40_000, torch.Generator().manual_seed(0))
    expected = (1 - sampler.power + sampler.power / sd**2) ** -0.5
    assert x.std().item() == pytest.approx(expected, rel=0.02)
    weights = sampler.state()["weights"]
    size = float(weights.sum() ** 2 / weights.square().sum()) / 40_000
    if sd == 0.9:
        assert sampler.power == 1.0 and size > 0.3
    else:
        assert sampler.power < 1.0 and size == pytest.approx(0.3, abs=1e-3)


def test_the_power_of_two_known_weights():
    """Weights 1 and e^-b: the effective size of two is (1 + e^-b)^2 / (1 + e^-2b)."""
    for goal in (0.55, 0.7):
        power = bearable_power(torch.tensor([0.0, -7.0], dtype=torch.float64), goal)
        w = math.exp(-7.0 * power)
        assert (1 + w) ** 2 / (1 + w * w) / 2 == pytest.approx(goal, abs=1e-6)


def test_the_two_losses_count_by_their_shares():
    """A second loss of 3 nats with weight 1/4, at any step, against the reverse divergence of the same draws."""

    class Three:
        def weight(self, done):
            return 0.25

        def loss(self, distribution, log_density, draws):
            return torch.tensor(3.0)

    action = VectorAction.plane("D4")
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)])
    settings = FitSettings(steps=4, batch_size=32)

    def log_density(x):
        return -x.square().sum(-1)

    objective = Energy(learnable(flow), log_density, settings=settings, annealing=None, mixing=Three())
    torch.manual_seed(0)
    both = objective.loss(2)
    torch.manual_seed(0)
    alone = reverse_kl_loss(flow.dist, log_density, 32)
    torch.testing.assert_close(both, 0.75 * alone + 0.75)
