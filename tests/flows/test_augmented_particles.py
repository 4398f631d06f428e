"""The flow of particles with auxiliary vectors: symmetry, bounds and estimates against quadrature, training."""

import math

import pyro
import pytest
import torch
from pyro.infer import SVI, Trace_ELBO

from pyro_gflows import (
    AugmentedFlow,
    ParticleAction,
    VectorAction,
    augment,
    fit,
    fit_energy,
    g_augmented_particle_flow,
    load,
    save,
)
from pyro_gflows.evaluation import energy_report
from pyro_gflows.flows import g_padding
from pyro_gflows.testing import randomize_
from pyro_gflows.training import Adam, FitSettings

ACTIONS = {
    "4 in the plane": ParticleAction(4, 2),
    "two species in space": ParticleAction((2, 3), 3),
    "rotations only": ParticleAction(3, 3, group="SO(3)"),
}
LINE = ParticleAction(2, 1)  # x has one coordinate, a has two


def flow_of(action, *, scale=0.1, **keywords):
    torch.manual_seed(0)
    made = g_augmented_particle_flow(action, **{"layers": 2, "width": 4, "depth": 1, "bins": 3} | keywords).double()
    return randomize_(made, scale=scale, generator=torch.Generator().manual_seed(1)).eval()


def configurations(action, *batch, seed=0):
    x = torch.randn(*batch, action.n, action.d, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return action.space.project(x)


@pytest.mark.parametrize("name", ACTIONS)
def test_the_joint_density_and_the_encoder_are_exactly_invariant(name):
    action = ACTIONS[name]
    density = flow_of(action, copies=2)
    x, g = configurations(action, 6), action.sample(6)
    z = action.to_coordinates(x)
    a = density.encoder.condition(z).sample()
    moved, a_moved = action.to_coordinates(action.act_each(g, x)), density.encoder.action.act_each(g, a)
    for score in (
        lambda z, a: density.flow(torch.cat([z, a], -1)),
        lambda z, a: density.encoder.condition(z).log_prob(a),
    ):
        torch.testing.assert_close(score(moved, a_moved), score(z, a), rtol=0, atol=1e-10)
        assert score(z, a).std() > 0.1


def by_quadrature(density, x, *, limit=8.0, count=61):
    """log p(x) for two particles on a line, the logarithm of the integral over two auxiliary components."""
    line = torch.linspace(-limit, limit, count, dtype=torch.float64)
    a = torch.cartesian_prod(line, line)
    z = LINE.to_coordinates(x)
    with torch.no_grad():
        scores = [density.flow(torch.cat([row.expand(len(a), 1), a], -1)).logsumexp(-1) for row in z]
    return torch.stack(scores) + 2 * math.log(2 * limit / (count - 1))


@pytest.fixture(scope="module")
def on_a_line():
    density = flow_of(LINE, draws=16384)
    z = torch.linspace(-7, 7, 43, dtype=torch.float64)[:, None]
    return density, LINE.from_coordinates(z), by_quadrature(density, LINE.from_coordinates(z))


def test_the_density_integrates_to_one_and_is_even(on_a_line):
    _, _, log_p = on_a_line
    assert abs(log_p.exp().sum() * 14 / 42 - 1) < 1e-3
    torch.testing.assert_close(log_p, log_p.flip(0), rtol=0, atol=1e-6)
    assert (log_p - log_p[21] + torch.linspace(-7, 7, 43, dtype=torch.float64).square() / 2).abs().max() > 0.1


def test_estimates_and_bounds_against_quadrature(on_a_line):
    density, x, log_p = on_a_line
    chosen = slice(18, 25, 2)
    with torch.no_grad():
        assert (density(x[chosen]) - log_p[chosen]).abs().max() < 0.1
    torch.manual_seed(0)
    bounds = [density.importance_bound(x[chosen].repeat(200, 1, 1), draws=k).reshape(200, -1).mean(0) for k in (1, 8)]
    assert (bounds[0] < bounds[1]).all()
    assert (bounds[1] < log_p[chosen] + 0.02).all()


def test_padded_log_density_has_the_normalizer_of_the_density_of_x(on_a_line):
    density, _, _ = on_a_line
    target = density.padded_log_density(lambda x: -0.5 * x.square().sum((-2, -1)) + 1.0)
    line = torch.linspace(-9, 9, 49, dtype=torch.float64)
    with torch.no_grad():
        scores = target(torch.cartesian_prod(line, line, line))
    log_z = scores.logsumexp(0) + 3 * math.log(18 / 48)
    assert abs(log_z - (1.0 + 0.5 * math.log(2 * math.pi))) < 1e-2
    report = energy_report(density.flow, target, draws=4000)
    assert abs(report.log_normalizer - log_z) < 5 * report.importance.standard_error + 1e-3


def test_draws_have_their_center_at_0_and_follow_the_density(on_a_line):
    density, x, log_p = on_a_line
    torch.manual_seed(0)
    draws = density.sample((20_000,))
    assert draws.shape == (20_000, 2, 1)
    assert draws.mean(-2).abs().max() < 1e-12
    grid = LINE.to_coordinates(x).flatten()
    below = (log_p.exp() * (grid.abs() < 0.7)).sum() / log_p.exp().sum()
    share = (LINE.to_coordinates(draws).abs() < 5 / 6).double().mean()  # the middle between two points of the grid
    assert abs(share - below) < 0.02


def test_it_trains_and_is_saved(tmp_path):
    action = ParticleAction(3, 2)
    torch.manual_seed(0)
    density = g_augmented_particle_flow(action, layers=2, width=4, depth=1, bins=3, draws=4)
    x = configurations(action, 256).float() * 3.0
    result = fit(density, x, settings=FitSettings(steps=10, batch_size=64), progress=False)
    assert result.steps == 10
    density.eval()
    assert -density(x).mean() < 2 * (1.42 + math.log(3)) * 2 + 1.0  # the normal density of these data, and a margin
    save(density, tmp_path / "flow.pt")
    again = load(tmp_path / "flow.pt")
    assert isinstance(again, AugmentedFlow)
    assert again.action == action
    assert torch.equal(again(x[:8]), density(x[:8]))
    assert "ParticleAction(S3 x O(2) on 3 particles" in repr(again).splitlines()[0]


def test_an_energy_trains_the_padded_flow():
    action = ParticleAction(3, 2)
    torch.manual_seed(0)
    density = g_augmented_particle_flow(action, layers=2, width=4, bins=2)
    target = density.padded_log_density(lambda x: -0.5 * x.square().sum((-2, -1)) / 9.0)
    before = energy_report(density.flow, target, draws=500).reverse_loss
    settings = FitSettings(steps=25, batch_size=64, optimizer=Adam(lr=2e-2))
    report = fit_energy(density.flow, target, settings=settings, progress=False)
    assert report.reverse_loss < before - 0.5


def test_pyro_trains_it():
    action = ParticleAction(3, 2)
    density = g_augmented_particle_flow(action, layers=1, width=4, depth=1, bins=2)
    x = configurations(action, 16).float()
    pyro.clear_param_store()
    svi = SVI(density.model, density.guide, pyro.optim.Adam({"lr": 1e-3}), Trace_ELBO())
    torch.manual_seed(0)
    loss = svi.step(x)
    torch.manual_seed(0)
    before = g_augmented_particle_flow(action, layers=1, width=4, depth=1, bins=2)
    assert math.isfinite(loss)
    assert len(pyro.get_param_store()) == len(list(before.parameters()))


def test_a_padding_of_any_kind_goes_with_particles():
    action = ParticleAction(4, 2)
    whole = g_augmented_particle_flow(action, layers=1, width=4)
    padding = action.rows
    density = augment(whole.flow, padding=padding, particles=action, draws=2)
    assert density(configurations(action, 5).float()).shape == (5,)
    with pytest.raises(ValueError, match="whose context is the coordinates of the particles"):
        augment(whole.flow, padding=g_padding(action.coordinates, padding), particles=ParticleAction(5, 2))
    with pytest.raises(TypeError, match="expected particles to be a ParticleAction or None"):
        augment(whole.flow, padding=padding, particles=VectorAction.plane("O(2)"))
    with pytest.raises(ValueError, match="layers >= 1"):
        g_augmented_particle_flow(action, layers=0)
