"""Fitting by a flow's own draws: weights that are tempered no more than needed, hard edges, and the same run again."""

import math

import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal, VectorAction
from pyro_gflows.training import Adam, FitSettings, OwnDraws, fit
from pyro_gflows.training.own_draws import bearable_power

ACTION = VectorAction.plane("D4")


def normal():
    return EquivariantFlow(InvariantNormal(ACTION), [GActNorm(ACTION)]).double()


def disc(x):
    """Uniform on a disc of radius 0.1: no gradient anywhere, and an edge."""
    return torch.where(x.norm(dim=-1) < 0.1, 0.0, -math.inf)


def ess(log_weights, power):
    return float(1 / (power * log_weights).softmax(0).square().sum()) / len(log_weights)


def test_the_power_brings_the_effective_size_to_the_goal_and_not_below():
    log_weights = 20 * torch.randn(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    power = bearable_power(log_weights, 0.4)
    assert 0 < power < 1
    assert ess(log_weights, power) == pytest.approx(0.4, abs=1e-3)


def test_good_weights_are_left_as_they_are():
    assert bearable_power(0.1 * torch.randn(1000, generator=torch.Generator().manual_seed(0)), 0.4) == 1.0


def test_draws_without_density_get_no_weight_at_any_power():
    sampler = OwnDraws(normal(), disc, pool=1000, ess=0.9)
    x = sampler(50, torch.Generator().manual_seed(0))
    assert (disc(x) == 0).all()


@pytest.mark.long
def test_finds_a_small_disc_with_an_edge():
    flow = normal()
    torch.manual_seed(0)
    sampler = OwnDraws(flow, disc, pool=2000, batches=20)
    settings = FitSettings(steps=120, batch_size=500, optimizer=Adam(lr=5e-2))
    fit(flow, sampler, settings=settings, progress=False)
    assert sampler.power == 1.0
    # a uniform disc of radius R has standard deviation R / 2 along an axis
    assert flow.dist.sample((4000,)).std().item() == pytest.approx(0.05, rel=0.1)


def test_leaves_the_mode_and_runs_the_same_again():
    runs = []
    for _ in range(2):
        flow = normal()
        settings = FitSettings(steps=30, batch_size=100)
        sampler = OwnDraws(flow, lambda x: -(x.norm(dim=-1) - 1).square() / 0.02, pool=500, batches=10)
        fit(flow, sampler, settings=settings, progress=False)
        runs.append(flow(torch.ones(2, dtype=torch.float64)).item())
    assert runs[0] == runs[1]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: OwnDraws(normal(), disc, ess=1.0), r"ess in \(0, 1\), got 10000, 50 and 1.0"),
        (
            lambda: OwnDraws(normal(), lambda x: x, pool=10)(2, torch.Generator()),
            r"to shape \(10,\), finite or -inf, got shape \(10, 2\)",
        ),
        (lambda: OwnDraws(normal(), lambda x: x[:, 0] / 0 * 0, pool=10)(2, torch.Generator()), "with NaN"),
        (lambda: OwnDraws(normal(), lambda x: x[:, 0] * 0 - math.inf, pool=10)(2, torch.Generator()), "wider base"),
    ],
)
def test_says_what_is_wrong(make, message):
    with pytest.raises(ValueError, match=message):
        make()
