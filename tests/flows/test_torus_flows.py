"""Flows on a torus: fitted to data and to an energy, drawn, scored, saved, and compared with a known normalization."""

import math

import pytest
import torch

from pyro_gflows import (
    EquivariantFlow,
    GActNorm,
    InvariantNormal,
    InvariantUniform,
    OrbitFlow,
    OrbitMixture,
    TorusAction,
    fit,
    fit_energy,
    g_residual,
)
from pyro_gflows.evaluation import energy_report, invariance_report
from pyro_gflows.serialization import load, save
from pyro_gflows.targets import density
from pyro_gflows.testing import assert_invariant, randomize_
from pyro_gflows.training import Adam, FitSettings, OneCycle


def flow_on(action, *, layers=3, fast="score"):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return EquivariantFlow(InvariantUniform(action), [g_residual(action, fast=fast) for _ in range(layers)])


def settings(steps, batch_size=256):
    return FitSettings(steps, batch_size=batch_size, optimizer=Adam(lr=2e-2), schedule=OneCycle(warmup=0.1, end=0.0))


@pytest.mark.long
def test_a_fit_to_draws_comes_near_to_the_density():
    target, action = density("torus-square"), TorusAction.point_group("D4")
    flow = flow_on(action)
    fit(flow, target, settings=settings(60), progress=False)
    x = target.sample(4000, torch.Generator().manual_seed(9))
    gap = float((target.log_prob(x) - flow.dist.log_prob(x)).detach().mean())
    assert 0 < gap < 0.15 < math.log((2 * math.pi) ** 2) - target.floor  # the gap of the uniform density
    assert_invariant(flow.double(), action, x[:20].double(), tol=1e-10)
    assert invariance_report(flow, x.double(), action).worst < 1e-10


@pytest.mark.long
def test_a_fit_to_an_energy_finds_the_normalization(tmp_path):
    """The correlated target is invariant under all translations that fix a + b."""
    target, action = density("torus-correlated"), TorusAction.fixing([[1, 1]])
    flow = flow_on(action, layers=2, fast="sample").double()
    fit_energy(flow, target.log_density, settings=settings(120, 128), progress=False)
    report = energy_report(flow, target.log_density, draws=4000)
    assert report.log_normalizer == pytest.approx(target.log_z, abs=5e-3) and report.ess > 0.99
    assert_invariant(flow, action, target.sample(20).double(), tol=1e-10)
    save(flow, tmp_path)
    x = target.sample(20).double()
    assert torch.equal(load(tmp_path)(x), flow(x))


@pytest.mark.parametrize("fast", ["score", "sample"])
@pytest.mark.parametrize(
    "action",
    [TorusAction.trivial(2), TorusAction.point_group("D4").with_translations([[math.pi, 0.0]])],
    ids=["no symmetry", "D4 with half periods"],
)
def test_draws_lie_on_the_circle_and_scores_agree(action, fast):
    flow = randomize_(flow_on(action, fast=fast).double(), generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)
    x = flow.dist.rsample((300,))
    assert x.requires_grad and (x >= 0).all() and (x < 2 * math.pi).all()
    sources = flow.transform.inv(x.detach())
    assert (sources >= 0).all() and (sources < 2 * math.pi).all()
    drawn = flow.dist.log_prob(x)
    torch.testing.assert_close(flow(x.detach().clone() - 4 * math.pi), drawn, rtol=0, atol=1e-8)
    points = 2 * math.pi * torch.arange(50, dtype=torch.float64) / 50
    values = flow(torch.cartesian_prod(points, points)).detach().exp()
    assert float(values.mean()) * (2 * math.pi) ** 2 == pytest.approx(1.0, abs=5e-3)  # its slopes have kinks


@pytest.mark.parametrize("other", [InvariantNormal, OrbitFlow, OrbitMixture, GActNorm])
def test_what_is_not_defined_on_angles_names_what_is(other):
    with pytest.raises(
        (TypeError, ValueError), match="on angles take the bases InvariantUniform and InvariantVonMises"
    ):
        other(TorusAction.point_group("D4"))
