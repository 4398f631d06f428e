import math

import pytest
import torch

from pyro_gflows import EquivariantFlow, GActNorm, InvariantNormal
from pyro_gflows.actions import ImageAction, VectorAction
from pyro_gflows.datasets import GrayLevels
from pyro_gflows.evaluation import (
    gap,
    group_bits_per_dim,
    group_log_probs,
    invariance_error,
    invariance_errors,
    log_probs,
    nll,
    symmetrized_nll,
)
from pyro_gflows.targets import density
from tests.small_flows import points, small_flow


class Truth(torch.nn.Module):
    """A module whose forward is an exact log-density."""

    def __init__(self, name):
        super().__init__()
        self.target = density(name)
        self.anchor = torch.nn.Parameter(torch.zeros((), dtype=torch.float64))

    def forward(self, x):
        return self.target.log_prob(x)


class Lopsided(Truth):
    """Not symmetric at all."""

    def forward(self, x):
        return torch.distributions.Normal(1.0, 2.0).log_prob(x[..., 0]) - x[..., 1].square() / 2


@pytest.mark.parametrize("name", ["8gaussians", "rings"])
def test_the_gap_of_the_truth_is_zero(name):
    value, error = gap(Truth(name), density(name), n=1000, generator=torch.Generator().manual_seed(0))
    assert value == pytest.approx(0, abs=1e-12) and error == pytest.approx(0, abs=1e-12)


def test_the_gap_is_the_divergence_of_two_known_densities():
    value, error = gap(Truth("8gaussians"), density("8gaussians"), n=1000, generator=torch.Generator().manual_seed(0))
    flow = small_flow()
    flow.initialize(density("8gaussians").sample(5000, torch.Generator().manual_seed(1)).double())
    value, error = gap(flow, density("8gaussians"), n=20_000, generator=torch.Generator().manual_seed(0))
    x = density("8gaussians").sample(20_000, torch.Generator().manual_seed(0)).double()
    assert value == pytest.approx(nll(flow, x) - density("8gaussians").floor, abs=0.03)
    assert 0 < error < 0.03


def test_batches_do_not_matter_and_the_mode_is_put_back():
    flow = small_flow().train()
    x = points(50)
    assert torch.allclose(log_probs(flow, x, batch_size=7), log_probs(flow, x), atol=1e-12)
    assert flow.training
    assert not log_probs(flow, x).requires_grad
    assert nll(flow, x) == pytest.approx(-float(flow.eval()(x).detach().mean()), abs=1e-12)


@pytest.mark.parametrize("group", ["C4", "D8", "O(2)"])
def test_invariance_errors_distinguish_symmetric_densities_from_others(group):
    action = VectorAction.plane(group)
    x = points(20)
    assert invariance_error(Truth("rings"), x, action, generator=torch.Generator().manual_seed(0)) < 1e-10
    assert invariance_error(Lopsided("rings"), x, action, generator=torch.Generator().manual_seed(0)) > 0.1


def test_group_figures_agree_with_their_definitions():
    action = VectorAction.plane("C4")
    model, x = Lopsided("rings"), points(40)
    each = torch.stack([model(action.act(g, x)) for g in action.elements()])
    assert torch.equal(group_log_probs(model, x, action), each)
    scaling = GrayLevels(17, gain=2.0)
    expected = scaling.bits_per_dim(-float(each.mean()), pixels=2)
    assert group_bits_per_dim(model, x, action, scaling=scaling) == pytest.approx(expected)
    symmetrized = -float(each.exp().mean(0).log().mean())
    assert symmetrized_nll(model, x, action) == pytest.approx(symmetrized, abs=1e-10)
    assert symmetrized < -float(each.mean())  # Jensen
    assert math.isfinite(expected)


def test_group_figures_need_a_finite_group():
    with pytest.raises(ValueError, match="finite"):
        group_log_probs(Truth("rings"), points(3), VectorAction.plane("O(2)"))


def test_of_a_large_group_generators_and_random_elements_are_tried():
    action = ImageAction.translations(size=12, point_group="D4")  # of order 1152
    x = torch.randn(2, 1, 12, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    flow = EquivariantFlow(InvariantNormal(action), [GActNorm(action)]).double()
    errors = invariance_errors(flow, x, action, generator=torch.Generator().manual_seed(1))
    assert errors.shape == (4 + 16, 2) and errors.max() < 1e-12

    class Corner(Truth):
        def forward(self, x):
            return x[..., 0, 0, 0]

    assert invariance_error(Corner("rings"), x, action, generator=torch.Generator().manual_seed(1)) > 0.1
