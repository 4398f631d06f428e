"""Small coupling flows fitted to densities of two angles, measured exactly: by quadrature on a grid."""

import math

import pytest
import torch

from pyro_gflows.actions import TorusAction
from pyro_gflows.flows.families import build_flow
from pyro_gflows.targets import density
from pyro_gflows.training import Adam, FitSettings, OneCycle, fit_energy

CIRCLE = 2 * math.pi
POINTS = 400


def fitted(target, action, *, steps, width=8):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flow = build_flow("coupling", action, size={"blocks": 1, "width": width})
        settings = FitSettings(steps, batch_size=256, optimizer=Adam(lr=2e-2), schedule=OneCycle(warmup=0.1, end=0.0))
        fit_energy(flow, target.log_density, settings=settings, progress=False)
    return flow.double().eval()


@torch.no_grad()
def exact_figures(flow, target):
    """The mass of the flow, both divergences, and the effective sample size, as sums over a grid."""
    grid = CIRCLE * torch.arange(POINTS, dtype=torch.float64) / POINTS
    x = torch.cartesian_prod(grid, grid)
    log_q, log_p = flow(x), target.log_prob(x)
    q, p = (log.exp() * (CIRCLE / POINTS) ** 2 for log in (log_q, log_p))
    ess = 1 / (p.square() / q).sum()
    # with the difference of the masses every term is at least 0, whatever the error of the sum
    reverse, forward = (q * (log_q - log_p) - q + p).sum(), (p * (log_p - log_q) - p + q).sum()
    return q.sum(), reverse, forward, ess


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "action"),
    [
        ("torus-multimodal", TorusAction.trivial(2)),
        ("torus-correlated", TorusAction.trivial(2)),
        ("torus-correlated", TorusAction.fixing([[1, 1]])),
    ],
    ids=str,
)
def test_coupling_flows_fit_densities_of_angles(name, action):
    target = density(name)
    flow = fitted(target, action, steps=120, width=4 if not action.is_finite else 8)
    mass, reverse, forward, ess = exact_figures(flow, target)
    assert mass == pytest.approx(1, abs=1e-3)
    assert reverse < 0.005 and forward < 0.005 and ess > 0.99
    assert sum(parameter.numel() for parameter in flow.parameters()) < 5000
